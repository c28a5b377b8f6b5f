"""Counted units and the sums over them."""
