"""Plan, apply and explain policies."""
