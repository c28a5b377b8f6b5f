"""The ledger: canonical form and hashes."""
