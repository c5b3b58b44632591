"""The models of ``test_transformers`` with 30 % of their channels removed, each against itself with these masked.

Guards against code of transformers, which reshapes by numbers of its own, that computes something else with fewer heads
or units: such a layer must stay, with the reason. Whole layers of each are found, too.
"""

import copy

import pytest
import torch
from tests.model.dependencies.test_removal import some_units
from tests.models.test_transformers import MODELS, made

from attar._src.core.errors import ModelError
from attar._src.deploy.dry_run import example_of
from attar._src.deploy.first_run import prepare
from attar._src.model.blocks.find import LayerTrials, find_residual_layers
from attar._src.model.capture import capture
from attar._src.model.dependencies.check import find_removable, masked_outputs
from attar._src.model.interface import call_by_name, flatten_outputs

#: Models whose heads stay, because both share one key, or positions are of a number that the code has; or without any.
HEADS_STAY = {"deberta", "llama", "qwen2", "gemma", "convnext", "resnet"}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_survives_or_says_what_stays(name):
    model, batch = made(name)
    module, inputs, _ = prepare(model, batch, examples=4, batch=4)
    example, axes, inputs = example_of(inputs, None)
    captured = capture(module.eval(), example, names=inputs.names, dynamic=axes, train=False)
    removable = find_removable(module, captured)
    found = removable.found
    units = some_units(found, 0.3)
    assert units
    smaller = copy.deepcopy(module)
    removable.remove(smaller, units)
    with torch.no_grad():
        given = flatten_outputs(call_by_name(smaller, captured.names, captured.example))
    for one, other in zip(given.values(), masked_outputs(captured, found, units).values(), strict=True):
        assert float((one - other).abs().max()) <= 1e-5 * max(1.0, float(other.abs().max()))
    assert any(len(group.units) == 2 for group in found.groups) == (name not in HEADS_STAY)
    weights = {weight for group in found.groups for weight in group.weights} | found.excluded.keys()
    if name == "albert":
        with pytest.raises(ModelError, match="it is called 2 times"):
            find_residual_layers(module, captured)
    else:
        layers = find_residual_layers(module, captured)
        trials = LayerTrials(module, captured)
        for layer in layers.layers:
            alone = {layer.path: layer.passage}
            assert not trials.fault({}, alone) or not trials.fault(alone, {})
            assert layer.container is not None
        assert layers.layers
    linear = {
        f"{n}.weight" for n, each in module.named_modules() if isinstance(each, torch.nn.Linear | torch.nn.Conv2d)
    }
    assert linear <= weights
