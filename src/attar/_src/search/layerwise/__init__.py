"""Searches layer by layer: what each layer may become, what that takes, and what it does to the network."""
