"""Entropy coders: turn uint8 symbols into bytes and back, with integer tables."""
