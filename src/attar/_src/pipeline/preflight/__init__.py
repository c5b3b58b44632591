"""Checks of a recipe before anything is trained: dry runs of its models, requirements, a trial of every stage."""
