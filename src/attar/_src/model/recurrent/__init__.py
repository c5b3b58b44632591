"""Recurrent layers as exporters should see them: one node each, on sequences of any length, padded ones as well."""
