"""Every table of the database."""
