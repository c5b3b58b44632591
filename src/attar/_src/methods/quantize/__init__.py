"""Quantization after training: solvers find the scales of weights, observers those of activations."""
