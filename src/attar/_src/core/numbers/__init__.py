"""Numbers of few digits, and whole steps."""
