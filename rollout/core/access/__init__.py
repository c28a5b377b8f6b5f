"""Events of the access ledger: users, roles and keys."""
