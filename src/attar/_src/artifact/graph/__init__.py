"""Validation of graphs in a file, and stripping them for writing."""
