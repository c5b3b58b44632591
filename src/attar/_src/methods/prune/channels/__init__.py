"""Structured pruning: channels, attention heads and recurrent units are removed with all that depends on them."""
