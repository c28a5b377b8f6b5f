"""The scope of a rollout: events, commands and the decider."""
