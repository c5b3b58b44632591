"""The test split is compared with the training split and with the models before any training."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import attar
from attar import DataError


def arrays(n=24, width=6, classes=3, kind=np.float32):
    rng = np.random.default_rng(n)
    return rng.normal(size=(n, width)).astype(kind), np.arange(n) % classes


def loader(x, y):
    return DataLoader(TensorDataset(torch.from_numpy(x), torch.from_numpy(y)), batch_size=8)


class Fit(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(6, 3))


@pytest.mark.parametrize("form", [lambda x, y: (x, y), loader, lambda x, y: {"input": x, "labels": y}])
@pytest.mark.parametrize(
    ("test", "message"),
    [
        (
            arrays(8, width=5),
            r"of test is float32 \(5,\) per example, that of train float32 \(6,\); prepare both alike",
        ),
        (arrays(8, kind=np.int32), r"of test is int32 \(6,\) per example, that of train float32 \(6,\)"),
        (arrays(8, classes=5), "test has the label 4, and models.net has 3 outputs, for the labels 0 to 2"),
    ],
)
def test_a_test_split_that_does_not_fit_stops_the_run_before_training(form, test, message, tmp_path):
    if form is loader and "(5,)" in message.replace("\\", ""):
        message = "recipe.data.source: the test split, by accuracy of models.net: .*shapes cannot be multiplied"
    data = {"train": form(*arrays()), "test": form(*test)}
    stages = [{"stage": "train", "epochs": 1, "batch": 8}]
    recipe = attar.Recipe(data=data, models={"net": {"source": Fit(), "stages": stages}})
    with pytest.raises(attar.AttarError, match=message) as caught:
        attar.run(recipe, tmp_path / "run")
    assert isinstance(caught.value, DataError) or form is loader
    # Nothing was begun, and the folder is free for the mended recipe.
    assert not (tmp_path / "run" / "journal.jsonl").exists()
