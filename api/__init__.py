"""The HTTP shell. Thin until the service exists: it says that it is alive, and nothing else."""
