"""Recipes: models, data and stages as validated specs, read from YAML or made in Python."""
