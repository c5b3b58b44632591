"""The network and the data of these tests."""

NETS = """
import numpy as np
import torch
from torch import nn


def net(width=16):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 3))


def sets(split):
    n = {"train": 256, "test": 64}[split]
    rng = np.random.default_rng(len(split))
    y = rng.integers(0, 3, n)
    return (np.eye(3)[y].repeat(2, 1) + rng.normal(scale=0.6, size=(n, 6))).astype("float32"), y
"""
