"""Programs: each defines its flags and makes one call into lesion."""
