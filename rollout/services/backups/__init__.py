"""Back up and restore a database; a restore begins an era with everything stopped."""
