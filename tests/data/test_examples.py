"""The example models: the published ResNets as they are, sequence models that learn their task."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from attar._src.core.registry import load_object
from attar._src.data.preprocessing import find_preprocessing
from attar._src.data.registry import load_dataset
from attar._src.runtime.preprocess import preprocess

EXAMPLES = Path(__file__).parents[2] / "examples"

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(("name", "parameters"), [("resnet20", 269_722), ("resnet56", 853_018)])
def test_resnets_have_the_published_size_and_any_batch(name: str, parameters: int) -> None:
    model = load_object(f"{EXAMPLES / 'resnet.py'}:{name}")(num_classes=10).eval()
    assert sum(p.numel() for p in model.parameters()) == parameters
    with torch.inference_mode():
        assert model(torch.zeros(3, 3, 32, 32)).shape == (3, 10)


@pytest.mark.skipif("ATTAR_DATA" not in os.environ, reason="ATTAR_DATA is not set: no trained ResNet to judge")
def test_the_trained_resnet_predicts_as_published() -> None:
    model = load_object(f"{EXAMPLES / 'resnet.py'}:resnet20")().eval()
    model.load_state_dict(load_file(Path(os.environ["ATTAR_DATA"]) / "weights" / "cifar10_resnet20.safetensors"))
    data = load_dataset("cifar10").take(np.arange(1000))
    preprocessing = find_preprocessing("imagenet")
    assert preprocessing is not None
    with torch.inference_mode():
        predicted = model(torch.from_numpy(preprocess(preprocessing, data.x))).argmax(1).numpy()
    assert abs(float((predicted == data.y).mean()) - 0.9173) < 0.02


@pytest.mark.parametrize("name", ["lstm", "gru", "encoder"])
def test_sequence_models_learn_the_order_of_two_tokens(name: str) -> None:
    torch.manual_seed(0)
    spec = f"{EXAMPLES / 'tokens.py'}:order"
    train, test = load_dataset(spec, "train"), load_dataset(spec, "test")
    x, y = torch.from_numpy(train.x), torch.from_numpy(train.y)
    model = load_object(f"{EXAMPLES / 'sequence.py'}:{name}")()
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    accuracy = 0.0
    for _ in range(4):
        for batch in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
        with torch.inference_mode():
            accuracy = float((model(torch.from_numpy(test.x)).argmax(1).numpy() == test.y).mean())
        if accuracy > 0.95:
            break
    assert accuracy > 0.95
