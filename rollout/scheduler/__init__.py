"""Background jobs; the database decides which replica runs each."""
