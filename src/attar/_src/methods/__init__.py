"""Compression methods. Each is one file and one line in a registry."""
