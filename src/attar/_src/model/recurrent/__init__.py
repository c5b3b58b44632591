"""Recurrent layers as the exporters should see them: one node each, on sequences of any length, padded ones included."""
