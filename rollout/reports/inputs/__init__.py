"""What figures are computed from."""
