"""A run: the models of a recipe trained, packed, verified and measured. A run can be resumed after any interruption."""
