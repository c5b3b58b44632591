"""Teachers: what a student learns from, and the cache of their outputs on disk."""
