"""Samplers that go layer by layer, in recipes."""

import re
from functools import partial

import pytest
import torch
from safetensors.torch import save_file
from tests.search.trials.test_run_search import NETS, RECIPE

import attar
from attar._src.core.errors import SpecError
from attar._src.core.registry import load_object, references_from
from attar._src.pipeline.execution.preparation import prepare_run
from attar._src.search.trials.by_layer import search_task
from attar._src.search.trials.reference import layers_of
from attar._src.search.trials.spec import read_holed_recipe


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a trained network."""
    folder = tmp_path_factory.mktemp("layers")
    (folder / "nets.py").write_text(NETS)
    net, sets = (load_object(f"{folder / 'nets.py'}:{name}") for name in ("net", "sets"))
    made, (x, y) = net(), sets("train")
    step = torch.optim.Adam(made.parameters(), 0.02)
    for _ in range(60):
        step.zero_grad()
        torch.nn.functional.cross_entropy(made(torch.from_numpy(x)), torch.from_numpy(y)).backward()
        step.step()
    save_file(made.state_dict(), folder / "net.safetensors")
    return folder


def written(folder, name, text):
    (folder / name).write_text(text)
    return folder / name


def task_of(path):
    holed = read_holed_recipe(path)
    with references_from(path.parent):
        first = holed.check()
        prepared = prepare_run(first)
        holed = holed.with_layers(partial(layers_of, prepared, first))
        return search_task(holed, holed.check(), prepared, 4)


@pytest.mark.parametrize("sampler", ["integer_program", "{name: ddpg, warm_up: 1, updates: 1}"])
def test_a_recipe_is_searched_layer_by_layer(folder, tmp_path, sampler):
    path = written(folder, "layers.yaml", RECIPE.replace("sampler: random", f"sampler: {sampler}"))
    found = attar.run_search(path, tmp_path / "out")
    tried = [each.options for each in found.files[1:]]
    assert len(tried) == 4
    # The first has the most bits; what comes then is smaller.
    assert {*tried[0].values()} == {8} or sampler != "integer_program"
    assert min(each.file_bytes for each in found.files[1:]) < found.files[1].file_bytes


def test_a_range_of_bits_is_as_good_as_a_list(folder):
    text = RECIPE.replace("sampler: random", "sampler: integer_program").replace(
        "choose: [2, 3, 4, 8]", "between: [3, 5]"
    )
    assert task_of(written(folder, "range.yaml", text)).problem.dimensions == {"bits": (3, 4, 5)}


def test_costs_predict_bytes_and_paths_are_those_of_the_recipe(folder):
    task = task_of(written(folder, "layers.yaml", RECIPE.replace("sampler: random", "sampler: integer_program")))
    assert [*task.problem.space] == [*task.space]
    assert all(own[(8,)] < own[(2,)] for own in task.problem.errors.values())
    assert all(own[(8,)] > own[(2,)] for own in task.problem.costs.values())


def test_where_time_is_the_aim_costs_are_milliseconds(folder):
    text = RECIPE.replace("sampler: random", "sampler: integer_program").replace("minimise: bytes", "minimise: ms")
    problem = task_of(written(folder, "timed.yaml", text)).problem
    assert problem.unit == "ms"
    assert all(0 <= cost < 50 for own in problem.costs.values() for cost in own.values())
    assert {choice for own in problem.costs.values() for choice in own} == {(bits,) for bits in (2, 3, 4, 8)}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("bits: 8,", "bits: 8, scales: {choose: [mse, gptq]},", r"stages\.0\.scales: .*goes layer by layer"),
        ("bits: 8,", "bits: {choose: [4, 8]},", r"recipe\.models\.net\.stages\.0\.bits: .*goes layer by layer"),
    ],
)
def test_other_holes_are_refused(folder, old, new, message):
    text = RECIPE.replace("sampler: random", "sampler: integer_program").replace(old, new)
    with pytest.raises(SpecError, match=message):
        task_of(written(folder, "refused.yaml", text))


#: The recipe with channels of groups for bits of layers.
CHANNELS = (
    re.sub(
        r"\{stage: quantize.*\}\n",
        '{stage: prune_channels, score: taylor, overrides: {"*": {choose: [0, 0.25, 0.5, 0.75], each: layer}}}\\n',
        RECIPE,
    )
    .replace("max_drop: 5", "max_drop: 30")
    .replace("sampler: random, trials: 4", "sampler: integer_program, trials: 3")
)


def test_channels_of_groups_are_searched_layer_by_layer(folder, tmp_path):
    """Guards against a search over layers whose channels cannot be removed, or that the costs do not describe."""
    path = written(folder, "channels.yaml", CHANNELS)
    problem = task_of(path).problem
    # The last layer has the channels of the output.
    assert [each.name for each in problem.layers] == ["0.weight"]
    assert [*problem.space] == ["models.net.stages.0.overrides.0"]
    assert problem.largest - problem.smallest == 4 * 12 * (6 + 1 + 3)
    found = attar.run_search(path, tmp_path / "out")
    sizes = {each.options["models.net.stages.0.overrides.0"]: each.file_bytes for each in found.files[1:]}
    assert len(sizes) == 3
    assert sizes[0] == max(sizes.values())
    assert sorted(sizes.values(), reverse=True) == [sizes[share] for share in sorted(sizes)]


def test_channels_are_timed_where_time_is_the_aim(folder):
    problem = task_of(written(folder, "c.yaml", CHANNELS.replace("minimise: bytes", "minimise: ms"))).problem
    assert problem.unit == "ms"
    assert all(0 <= cost < 50 for own in problem.costs.values() for cost in own.values())
    assert problem.cost(problem.space.lowest) == sum(own[(0,)] for own in problem.costs.values())


def test_two_holes_of_one_group_are_refused(folder):
    text = CHANNELS.replace('"*": {choose: [0, 0.25, 0.5, 0.75], each: layer}', '"2": {choose: [0, 0.5]}')
    with pytest.raises(SpecError, match="'2' is of 0 that can be removed"):
        task_of(written(folder, "kept.yaml", text))


RESIDUAL = """

class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.inner, self.outer = nn.Linear(6, 16), nn.Linear(16, 12), nn.Linear(12, 16)
        self.norm, self.head = nn.BatchNorm1d(16), nn.Linear(16, 3)

    def forward(self, x):
        x = self.norm(self.stem(x))
        return self.head((x + self.outer(self.inner(x).relu())).relu())


def residual():
    torch.manual_seed(0)
    return Residual()
"""


@pytest.mark.parametrize(
    ("stage", "holes"),
    [
        ('overrides: {"*": {choose: [0, 0.5], each: layer}}', {"inner", "stem"}),
        # The two layers that are added lose the same channels.
        ('overrides: {"*": {choose: [0, 0.5], each: layer}, outer: 0.25}', {"inner"}),
        ("overrides: {outer: {choose: [0, 0.5], each: layer}}", {"stem"}),
        ('exclude: [outer], overrides: {"*": {choose: [0, 0.5], each: layer}}', {"inner"}),
        # No norm has the channels of inner.
        ('score: batch_norm, overrides: {"*": {choose: [0, 0.5], each: layer}}', {"stem"}),
    ],
)
def test_there_is_a_hole_for_each_group_that_a_trial_can_choose_for(folder, tmp_path, stage, holes):
    """Guards against holes whose value counts for nothing, and such that no trial can fill."""
    (folder / "nets2.py").write_text(NETS + RESIDUAL)
    recipe = CHANNELS.replace("nets.py:net, weights: net.safetensors", "nets2.py:residual")
    recipe = recipe.replace('score: taylor, overrides: {"*": {choose: [0, 0.25, 0.5, 0.75], each: layer}}', stage)
    path = written(folder, "groups.yaml", recipe)
    assert {each.rpartition(".")[2] for each in task_of(path).problem.space} == holes
    found = attar.run_search(path, tmp_path / "out")
    sizes = [each.file_bytes for each in found.files[1:]]
    assert len({*sizes}) == len({tuple(each.options.values()) for each in found.files[1:]}) > 1
