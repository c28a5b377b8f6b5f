"""Send reports to channels."""
