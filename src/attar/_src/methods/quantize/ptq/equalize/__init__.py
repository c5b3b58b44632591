"""Equalization: channels of two layers brought to equal ranges before rounding."""
