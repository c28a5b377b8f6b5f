"""The ledger and the projections of its events."""
