"""Health checks of a database, from the outside."""
