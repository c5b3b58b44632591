"""Learned step size quantization (Esser et al. 2020) and LSQ+ (Bhalgat et al. 2020)."""
