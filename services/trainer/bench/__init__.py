"""`loupe bench`: every family and backbone on sets of real photos, in two protocols kept apart (arrow 6)."""
