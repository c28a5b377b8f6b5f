"""Make, store and schedule reports."""
