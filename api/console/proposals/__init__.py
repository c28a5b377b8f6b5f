"""Console pages: proposals and their approval."""
