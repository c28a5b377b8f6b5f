"""The console: pages for people, on the service's own acts and rights."""
