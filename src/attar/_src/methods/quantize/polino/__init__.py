"""Methods of Polino et al. 2018: evenly spaced points for quantized distillation, and trained codebooks."""
