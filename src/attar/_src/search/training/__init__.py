"""Trained files of a search: ways to train, what is tried next, and how a file is made."""
