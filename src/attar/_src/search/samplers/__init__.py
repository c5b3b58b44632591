"""Samplers: what a search tries next, as a function of what was measured before."""
