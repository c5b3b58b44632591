"""Data sets as numpy arrays with the preprocessing that turns their raw examples into inputs; above ``runtime``."""

from attar.data.dataset import Dataset, holdout
from attar.data.registry import DATASETS, load

__all__ = ["DATASETS", "Dataset", "holdout", "load"]
