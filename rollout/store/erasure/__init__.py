"""Deleting contents and names on request; counts, hashes and ledgers stay."""
