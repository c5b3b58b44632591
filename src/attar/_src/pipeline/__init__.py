"""A run: the models of a recipe trained, packed, verified and measured, resumable at any progress."""
