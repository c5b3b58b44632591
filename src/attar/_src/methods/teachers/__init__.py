"""Teachers of a student in distillation, and the cache of their outputs on disk."""
