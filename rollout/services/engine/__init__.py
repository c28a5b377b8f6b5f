"""The live engine: state of rollouts, commands, evidence, ticks."""
