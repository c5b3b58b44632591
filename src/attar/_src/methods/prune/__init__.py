"""Pruning rules for weights and activations, and the scores that rank weights."""
