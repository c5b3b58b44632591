"""Pruning of weights after training: masks by scores, and remaining weights that make up for what is removed."""
