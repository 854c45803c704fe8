"""The reading page in the browser, on which a doctor labels the slices that a round queries."""
