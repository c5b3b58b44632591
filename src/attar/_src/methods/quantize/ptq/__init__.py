"""Post-training quantization: solvers find the scales of weights, observers the ranges of activations."""
