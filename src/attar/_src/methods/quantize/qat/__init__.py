"""Quantization-aware training: fake quantization with a straight-through estimator, and what steadies it."""
