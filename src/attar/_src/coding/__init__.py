"""Entropy coders: symbols to bytes and back, by integer tables."""
