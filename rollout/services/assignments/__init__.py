"""Answer who decides a case; hand out snapshots."""
