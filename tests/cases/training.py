"""Helpers of the cases in which models are trained."""

import torch
from torch.utils.data import DataLoader, TensorDataset

import attar


def loaders(x, y, batch=32):
    """Loaders of 70, 15 and 15 per cent of the examples."""
    first, second = int(len(x) * 0.7), int(len(x) * 0.85)
    parts = {"train": slice(first), "validation": slice(first, second), "test": slice(second, None)}
    return {
        name: DataLoader(TensorDataset(x[part], y[part]), batch_size=batch, shuffle=name == "train")
        for name, part in parts.items()
    }


def trained(folder, **recipe):
    """Run a recipe and return the report and each model's test metric."""
    torch.set_num_threads(1)
    report = attar.run(attar.Recipe(**recipe), folder).report
    return report, {model["name"]: model["metric_mean"] for model in report["models"]}
