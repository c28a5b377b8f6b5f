"""Intervals and tests for reports; gates use `rollout.core.statistics`."""
