"""Review tasks and cleaning choices."""
