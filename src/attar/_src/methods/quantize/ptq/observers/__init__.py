"""Observers: the ranges of activations, and what calibration says of values."""
