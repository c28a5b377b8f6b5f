"""Read, describe and verify ledgers."""
