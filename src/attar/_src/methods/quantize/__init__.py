"""Quantization: after training (ptq), with straight-through gradients (qat), learned steps (lsq), buckets (polino)."""
