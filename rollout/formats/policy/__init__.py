"""Policy files: read, check, build and draft."""
