"""`rollout demo --serve`: the mail room as live traffic through the service's API."""
