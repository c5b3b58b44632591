"""Scores of layers: what a network loses without a residual block or transformer layer; the lowest are removed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch

from attar._src.core.registry import Registry
from attar._src.methods.prune.layers.runs import LayerRuns


class LayerScore:
    """The importance of layers.

    Attributes:
        name: in recipes.
        labels: whether it needs labels.
    """

    name: ClassVar[str]
    labels: ClassVar[bool] = False

    def score(self, runs: LayerRuns) -> Mapping[str, float]:
        """Return path of a layer -> its finite score."""
        raise NotImplementedError


class SimilarityScore(LayerScore):
    """``1 - cos(x, y)`` of input x and output y of a layer, the mean over examples (Men et al. 2024, "ShortGPT: layers
    in large language models are more redundant than you expect", equation 1, where it is the mean over tokens).

    ``x = (1, 0)`` and ``y = (1, 1)``: 1 - 1 / sqrt(2) = 0.29.
    """

    name: ClassVar[str] = "similarity"

    def score(self, runs: LayerRuns) -> Mapping[str, float]:
        return runs.means(lambda x, y: 1 - torch.cosine_similarity(x.flatten(1), y.flatten(1), dim=1))


class OutputScore(LayerScore):
    """``sum |f - f_i|^2 / sum |f|^2``: f the main output of the network, f_i that without layer i; without the
    divisor where f is zero."""

    name: ClassVar[str] = "output"

    def score(self, runs: LayerRuns) -> Mapping[str, float]:
        whole = [*runs.outputs()]
        size = sum(float(each.square().sum()) for each in whole) or 1.0
        return {
            path: sum(float((a - b).square().sum()) for a, b in zip(whole, runs.outputs(path), strict=True)) / size
            for path in runs.layers
        }


class LossScore(LayerScore):
    """The mean loss of labelled examples without a layer (Kim et al. 2024, "Shortened LLaMA: depth pruning for large
    language models", section 3.1, where it is the perplexity)."""

    name: ClassVar[str] = "loss"
    labels: ClassVar[bool] = True

    def score(self, runs: LayerRuns) -> Mapping[str, float]:
        return {path: runs.loss(path) for path in runs.layers}


class LayerTaylorScore(LayerScore):
    """``|sum dL/dy (x - y)|`` of each example, the mean over examples: the change of its loss in first order when a
    layer returns its input x instead of y (Molchanov et al. 2019, "Importance estimation for neural network pruning",
    section 3.1, of a gate behind the layer)."""

    name: ClassVar[str] = "taylor"
    labels: ClassVar[bool] = True

    def score(self, runs: LayerRuns) -> Mapping[str, float]:
        return runs.gate_gradients()


class RandomLayerScore(LayerScore):
    """Uniform random numbers: the control that any other score should beat."""

    name: ClassVar[str] = "random"

    def score(self, runs: LayerRuns) -> Mapping[str, float]:
        drawn = torch.rand(len(runs.layers), generator=torch.Generator().manual_seed(runs.seed))
        return dict(zip(runs.layers, drawn.tolist(), strict=True))


LAYER_SCORES: Registry[LayerScore] = Registry(
    "layer score",
    SimilarityScore(),
    OutputScore(),
    LossScore(),
    LayerTaylorScore(),
    RandomLayerScore(),
    base=LayerScore,
)
