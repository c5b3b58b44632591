"""Backends: a file in the format of another runtime."""
