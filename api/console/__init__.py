"""Console pages, on top of the services and their permission checks."""
