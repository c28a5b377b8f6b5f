"""Console pages: divergences and the confusion matrix."""
