"""Facts of a rollout as numbers, and the pages, files and texts that show them."""
