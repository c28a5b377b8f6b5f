"""A rollout for trying: accounts, keys, an imported history, simulated traffic."""
