"""Bits of each layer under a target: sensitivities are measured, then an integer program chooses."""
