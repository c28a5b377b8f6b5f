"""Proposals, their evidence and their approvers."""
