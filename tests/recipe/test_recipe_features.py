"""Losses that look into a teacher: what cannot be looked into is known before any compute, with its path."""

import re

import pytest
from ruamel.yaml import YAML
from tests.pipeline.test_try_stages import TRAIN, look, net, one_thread, refusal  # noqa: F401

import attar
from attar._src.core.errors import SpecError
from attar._src.recipe.yaml_text import format_yaml

HINT = {"name": "hint", "teacher": "teacher", "layers": {"0": "2"}}


def stage(*terms):
    return {**TRAIN, "stage": "finetune", "objective": [*terms, "cross_entropy"]}


def test_a_loss_that_looks_into_layers_is_tried():
    look(stage(HINT), TRAIN, {**TRAIN, "loss": HINT})
    look(stage({**HINT, "layers": {"0": "3", "1": "0"}}), module=net(norm=True))


@pytest.mark.parametrize(
    ("term", "message"),
    [
        ({**HINT, "layers": {"00": "0"}}, "stages.1: no layer named '00'; did you mean '0'"),
        ({**HINT, "layers": {"0": "22"}}, "stages.1: teacher 'teacher': no layer named '22'; did you mean '2'"),
        ({**HINT, "name": "attention"}, "stages.1: loss attention: attention is over positions"),
    ],
)
def test_a_layer_that_does_not_fit_is_named_before_training(term, message):
    assert refusal(TRAIN, stage(term)).startswith(f"recipe.models.net.{message}")


def recipe(teacher, student, **fields):
    models = {"big": {"source": {"factory": "net.py:net"}, **teacher}, "small": {"source": "net.py:net", **student}}
    return attar.Recipe(data="digits", models=models, **fields)


HINTED = {"stage": "finetune", "epochs": 1, "objective": ["cross_entropy", {**HINT, "teacher": "big"}]}
AT = "recipe.models.small.stages.0"


@pytest.mark.parametrize(
    ("teacher", "stage", "fields", "message"),
    [
        (
            {},
            HINTED,
            {"teacher_cache": {"big": {}}},
            f"{AT}.objective.1.teacher: the stage reads layers or other outputs of 'big', which is cached",
        ),
        (
            {"source": {"file": "big.attar"}},
            HINTED,
            {},
            f"{AT}.objective.1.teacher: the stage reads layers or other outputs of 'big', which is a",
        ),
        (
            {"stages": [{"stage": "quantize"}]},
            HINTED,
            {},
            f"{AT}.objective.1.teacher: the stage reads layers or other outputs of 'big', which is",
        ),
        (
            {},
            {"stage": "train", "epochs": 1, "loss": {**HINT, "teacher": "big"}},
            {"teacher_cache": {"big": {}}},
            f"{AT}: the stage reads layers or other outputs of 'big', which is cached, and a cache has its main output "
            "only; remove 'big' from",
        ),
        ({}, {**HINTED, "objective": HINT}, {}, f"{AT}.teacher: no model named 'teacher'"),
    ],
)
def test_a_teacher_that_shows_outputs_alone_is_refused_with_its_path(teacher, stage, fields, message):
    with pytest.raises(SpecError, match=re.escape(message)):
        recipe(teacher, {"stages": [stage]}, **fields)


def test_a_recipe_that_looks_into_a_program_is_taken_and_written_out_again():
    made = recipe({"stages": [{"stage": "train", "epochs": 1}]}, {"stages": [{**HINTED, "norm_batches": 20}]})
    (found,) = made.models["small"].stages
    assert found.norm_batches == 20
    again = YAML(typ="safe", pure=True).load(format_yaml(found.describe()))
    assert again["objective"][1]["layers"] == {"0": "2"}
