"""One module for each format in or out: bytes to core records and back."""
