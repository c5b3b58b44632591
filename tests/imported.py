"""Import once what a run, a search and a training on two ranks need, and export once, which imports and tabulates more.

A process that is forked from one that has imported this (``tests.forked``) begins its work at once.
"""

import onnxruntime  # noqa: F401
import torch
from lightning_fabric import Fabric  # noqa: F401
from torch import nn

import attar._src.cli.run
import attar._src.pipeline.run  # noqa: F401
from attar._src.model.capture import capture
from attar._src.model.trace import deploy_graph

torch.set_num_threads(1)
_NET = nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3), nn.ReLU())
deploy_graph(_NET, capture(_NET, (torch.zeros(4, 6),)))
