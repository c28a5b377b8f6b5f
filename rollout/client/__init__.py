"""Client library: decides with a local snapshot of the scope for its lease."""
