"""Pruning: scores say which weights matter least, rules set those and small activations to zero."""
