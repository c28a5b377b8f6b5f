"""Background jobs, woken by one scheduler; the database decides which replica runs each."""
