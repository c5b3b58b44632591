"""The methods of Polino et al. 2018: quantized distillation on uniform points, and trained codebooks."""
