"""Console pages: the ledger and incidents."""
