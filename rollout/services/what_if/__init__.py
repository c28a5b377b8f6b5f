"""What a policy draft would have changed over recorded cases."""
