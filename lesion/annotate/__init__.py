"""The reading page, on which a doctor answers what a round asks."""
