"""Users, keys, sessions and the access ledger."""
