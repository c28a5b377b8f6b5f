"""Console pages: reports and deliveries."""
