"""Console pages: overview, rollout, stop, narrow, resume and policy."""
