"""One module per revision, named by date and what it does."""
