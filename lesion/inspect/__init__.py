"""What is in a checkpoint: read leaf by leaf, measured, held against another, shown as text and as a page."""
