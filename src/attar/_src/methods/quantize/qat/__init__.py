"""Quantization-aware training: straight-through fake quantization, and rules and terms that stabilise it."""
