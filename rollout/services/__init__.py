"""Use cases: load, call the core, append or write. Each is a few lines around pure functions."""
