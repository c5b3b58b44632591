"""Runs of a network with one part changed."""
