"""Weights set to zero without training, beside ``torch.nn.utils.prune`` and a reference of SparseGPT: ResNet-20.

    python benchmarks/pruning_weights.py [METHOD ...] [--seed 0]     adds rows to pruning_weights.json, prints a table

All prune the same trained weights (``ATTAR_DATA``), convolutions and the linear layer, to 50 % zeros each or 2:4, from
the same 1,024 training images without labels, and are judged by the same 10,000 test images, once a row, in PyTorch.

The reference follows the authors' program for SparseGPT (Frantar and Alistarh 2023, algorithm 1): layer after layer, of
what each reads in the pruned network; blocks of 128 columns, 1 % damping; batch-norms are folded first, as in a file,
so that its scores see the same weights. 2:4 is along the flattened input, channel after channel.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional
from torch.nn.utils import fuse_conv_bn_eval, prune

import attar
from attar._src.core.registry import load_object
from attar._src.data.preprocessing import parse_preprocessing
from attar._src.data.registry import load_dataset
from attar._src.deploy.build_module import build_module
from attar._src.runtime.preprocess import preprocess

HERE = Path(__file__).parent
RESULTS = HERE / "pruning_weights.json"
EXAMPLES, BATCH, DAMPING, BLOCK = 1024, 64, 0.01, 128

Pruner = Callable[[nn.Module, torch.Tensor], nn.Module]


def layers_of(module: nn.Module) -> dict[str, nn.Conv2d | nn.Linear]:
    """Return the layers with weights, by name in the order of the forward pass."""
    return {name: each for name, each in module.named_modules() if isinstance(each, nn.Conv2d | nn.Linear)}


def by_magnitude(module: nn.Module, _: torch.Tensor, *, together: bool = False) -> nn.Module:
    """Prune by PyTorch's own functions."""
    layers = [(layer, "weight") for layer in layers_of(module).values()]
    if together:
        prune.global_unstructured(layers, pruning_method=prune.L1Unstructured, amount=0.5)
    for layer, name in layers:
        if not together:
            prune.l1_unstructured(layer, name, amount=0.5)
        prune.remove(layer, name)
    return module


def folded(module: nn.Module) -> nn.Module:
    """Fold each batch-norm into the convolution before it; both are attributes of one module, conv1 with bn1."""
    for owner in [*module.modules()]:
        for name, norm in [*owner.named_children()]:
            if isinstance(norm, nn.BatchNorm2d):
                layer = f"conv{name.removeprefix('bn')}"
                setattr(owner, layer, fuse_conv_bn_eval(getattr(owner, layer), norm))
                setattr(owner, name, nn.Identity())
    return module


def by_reference(module: nn.Module, images: torch.Tensor, *, pattern: tuple[int, int] | None = None) -> nn.Module:
    """Prune by SparseGPT, layer after layer."""
    module = folded(module.eval())
    for layer in layers_of(module).values():
        hessian = _hessian(module, layer, images)
        weight = layer.weight.detach().flatten(1).double()
        if pattern is None or layer.weight.shape[1] % pattern[1] == 0:
            layer.weight.data = _sparsegpt(weight, hessian, pattern).reshape(layer.weight.shape).float()
    return module


def _hessian(module: nn.Module, layer: nn.Conv2d | nn.Linear, images: torch.Tensor) -> torch.Tensor:
    """Return the mean of ``2 x x^T`` over what a layer multiplies, float64."""
    columns = layer.weight[0].numel()
    found, count = torch.zeros((columns, columns), dtype=torch.float64), 0

    def see(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        nonlocal found, count
        x = inputs[0]
        if isinstance(layer, nn.Conv2d):
            kernel, stride, padding = layer.kernel_size, layer.stride, layer.padding
            assert not isinstance(padding, str)
            x = functional.unfold(x, kernel, padding=padding, stride=stride).movedim(1, -1)
        x = x.reshape(-1, columns)
        found += (x.T @ x).double() * 2
        count += len(x)

    handle = layer.register_forward_pre_hook(see)
    with torch.no_grad():
        for start in range(0, len(images), BATCH):
            module(images[start : start + BATCH])
    handle.remove()
    return found / count


def _sparsegpt(weight: torch.Tensor, hessian: torch.Tensor, pattern: tuple[int, int] | None) -> torch.Tensor:
    """Return the weight with half of its elements zero, or N of each M neighbours."""
    dead = hessian.diagonal() == 0
    hessian[dead, dead] = 1
    weight[:, dead] = 0
    hessian.diagonal().add_(DAMPING * hessian.diagonal().mean())
    factor = torch.linalg.cholesky(torch.linalg.inv(hessian), upper=True)
    for start in range(0, weight.shape[1], BLOCK):
        stop = min(start + BLOCK, weight.shape[1])
        block, own = weight[:, start:stop].clone(), factor[start:stop, start:stop]
        made, errors = torch.zeros_like(block), torch.zeros_like(block)
        scores = block.square() / own.diagonal().square()
        gone = scores <= scores.flatten().sort().values[int(scores.numel() * 0.5)]
        for place in range(stop - start):
            if pattern is not None and (start + place) % pattern[1] == 0:
                ahead = slice(place, place + pattern[1])
                now = block[:, ahead].square() / own.diagonal()[ahead].square()
                gone[:, ahead] = now.argsort(1).argsort(1) < pattern[1] - pattern[0]
            made[:, place] = block[:, place].masked_fill(gone[:, place], 0)
            errors[:, place] = (block[:, place] - made[:, place]) / own[place, place]
            block[:, place:] -= errors[:, place, None] * own[place, None, place:]
        weight[:, start:stop] = made
        weight[:, stop:] -= errors @ factor[start:stop, stop:]
    return weight


def by_attar(**options: Any) -> Pruner:
    """Prune by ``attar.prune``."""
    return lambda module, images: attar.prune(module, images, examples=EXAMPLES, batch=BATCH, **options).module


METHODS: dict[str, Pruner] = {
    "torch l1, 50 %": by_magnitude,
    "torch l1 global, 50 %": lambda module, images: by_magnitude(module, images, together=True),
    "SparseGPT reference, 50 %": by_reference,
    "SparseGPT reference, 2:4": lambda module, images: by_reference(module, images, pattern=(2, 4)),
    "Attar l1, 50 %": by_attar(sparsity=0.5, score="l1", update="none"),
    "Attar sparsegpt, 50 %": by_attar(sparsity=0.5, update="sparsegpt"),
    "Attar obs, 50 %": by_attar(sparsity=0.5),
    "Attar obs, 2:4": by_attar(unit="2:4"),
}


def measure(method: str, seed: int) -> dict[str, Any]:
    """Return the accuracy of one method, and its zeros."""
    root = Path(os.environ["ATTAR_DATA"])
    network = load_object(f"{HERE.parent / 'examples' / 'resnet.py'}:resnet20")
    module = build_module(network, {}, root / "weights" / "cifar10_resnet20.safetensors").eval()
    preprocessing = parse_preprocessing("imagenet")
    assert preprocessing is not None
    learn, test = load_dataset("cifar10", "train").subset(EXAMPLES, seed), load_dataset("cifar10", "test")
    images, begun = torch.from_numpy(preprocess(preprocessing, learn.x)), time.process_time()
    pruned = METHODS[method](module, images).eval()
    seconds = time.process_time() - begun
    weights = [layer.weight for layer in layers_of(pruned).values()]
    zeros = sum(int((each == 0).sum()) for each in weights) / sum(each.numel() for each in weights)
    right = _right(pruned, preprocess(preprocessing, test.x), np.asarray(test.y))
    return {
        "method": method,
        "seed": seed,
        "accuracy": round(100 * right, 2),
        "zeros": round(zeros, 4),
        "processor_seconds": round(seconds, 1),
    }


def _right(module: nn.Module, x: NDArray[np.float32], y: NDArray[np.int64]) -> float:
    with torch.no_grad():
        found = [module(torch.from_numpy(x[i : i + 250])).argmax(1).numpy() for i in range(0, len(x), 250)]
    return float((np.concatenate(found) == y).mean())


def main() -> None:
    """Measure what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", metavar="METHOD", help=f"of {'; '.join(METHODS)}; all by default")
    parser.add_argument("--seed", type=int, default=0, help="of the images")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    known = {(each["method"], each["seed"]) for each in rows}
    for method in options.methods or METHODS:
        if (method, options.seed) not in known:
            rows.append(measure(method, options.seed))
            RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
    print("| method | accuracy, % | zeros, % | processor time, s |\n|---|---:|---:|---:|")
    for each in sorted(rows, key=lambda each: [*METHODS].index(each["method"])):
        cells = f"{each['accuracy']:.2f} | {100 * each['zeros']:.1f} | {each['processor_seconds']:.0f}"
        print(f"| {each['method']} | {cells} |")


if __name__ == "__main__":
    main()
