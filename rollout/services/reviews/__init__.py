"""Review tasks: claim, show, decide, adjudicate."""
