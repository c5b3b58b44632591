"""Weights of up to four bits that stay packed in memory, for products with activations in floating point."""
