"""Console pages: reviews, adjudications and cases."""
