"""Reports as HTML, Markdown, JSON, CSV and text."""
