"""Take records in: validate, store, open review tasks, judge actions."""
