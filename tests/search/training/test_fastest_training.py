"""Precision, memory layout and outputs of the teacher of a search's trainings: decided once, by what they take."""

import numpy as np
import pytest
import torch
from torch import nn

from attar._src.search.search_folder import SearchFolder
from attar._src.search.training import student_facts
from attar._src.search.training.parts import divide
from attar._src.search.training.trainer import Trainer, TrainingParts


def images(count=128, augment=()):
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(count, 3, 8, 8)).astype(np.float32), draw.integers(0, 4, count)
    return divide((x, y), None, list(augment)).data


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4))


def trainer(folder, **parts):
    return Trainer(TrainingParts(images(**parts), {"factory": net()}, epochs=1), {}, folder)


@pytest.fixture
def journal(tmp_path):
    folder = SearchFolder(tmp_path / "s", resume=True)
    folder.begin({})
    return folder


def test_a_short_training_is_plain(tmp_path, journal, monkeypatch):
    """Guards against files of small networks that depend on what was measured."""
    monkeypatch.setattr(student_facts, "measure_precision", None)
    made = trainer(tmp_path)
    made.decide(journal, None)
    assert (made.precision, made.layout, made.epochs) == ("32-true", "contiguous", 1)


def test_a_long_training_takes_what_is_fastest_and_goes_on_with_it(tmp_path, journal, monkeypatch):
    """Guards against hours in float32 where bfloat16 takes a third, and against another choice after a stop."""
    figures = {"32-true contiguous": 1.0, "bf16-mixed contiguous": 1.0}
    found = student_facts.Decision("bf16-mixed", "channels_last", figures | {"bf16-mixed channels_last": 0.125})
    monkeypatch.setattr(student_facts, "_LONG_EPOCH", 0.0)
    monkeypatch.setattr(student_facts, "measure_precision", lambda *_: found)
    made = trainer(tmp_path)
    made.decide(journal, None)
    assert made.facts.step_seconds == 0.125
    recipe = made.recipe([])
    assert (recipe.precision, recipe.layout) == ("bf16-mixed", "channels_last")

    other = student_facts.Decision("32-true", "contiguous", figures)
    monkeypatch.setattr(student_facts, "measure_precision", lambda *_: other)
    again = trainer(tmp_path)
    again.decide(SearchFolder(journal.path, resume=True), None)
    assert again.recipe([]).described() == recipe.described()


def test_a_search_of_before_there_was_a_choice_goes_on_as_it_began(tmp_path, journal, monkeypatch):
    """Guards against a cut training whose folder refuses another precision, and outputs of a teacher made anew."""
    stages = [{"stage": "distill", "teacher": "teacher", "epochs": 1, "batch": 64}]
    began = trainer(tmp_path, augment=["flip", {"name": "crop", "padding": 2}])
    journal.decide("epochs of a training", lambda: 1)
    monkeypatch.setattr(student_facts, "_LONG_EPOCH", 0.0)
    found = student_facts.Decision("bf16-mixed", "channels_last", {})
    monkeypatch.setattr(student_facts, "measure_precision", lambda *_: found)
    again = trainer(tmp_path, augment=["flip", {"name": "crop", "padding": 2}])
    again.decide(journal, 1e-6)
    assert again.recipe(stages).described() == began.recipe(stages).described()


def test_training_in_the_fastest_layout_ends_in_a_file(tmp_path, journal, monkeypatch):
    """Guards against modules prepared in one memory layout that a run in another refuses, or trains in the first."""
    monkeypatch.setattr(student_facts, "_LONG_EPOCH", 0.0)
    found = student_facts.Decision("bf16-mixed", "channels_last", {})
    monkeypatch.setattr(student_facts, "measure_precision", lambda *_: found)
    made = trainer(tmp_path)
    made.decide(journal, None)
    path = tmp_path / "a.attar"
    stages = [{"stage": "distill", "teacher": "teacher", "epochs": 1, "batch": 64}]
    place = made.run(stages, "a", path)
    assert path.stat().st_size > 0
    written = (tmp_path / place).read_text()
    assert "bf16-mixed" in written
    assert "channels_last" in written
    # Prepared once for all trainings.
    prepared = made._prepared
    made.run(stages, "b", tmp_path / "b.attar")
    assert made._prepared is prepared
    assert prepared.fits(made.recipe(stages))


def test_outputs_of_a_slow_teacher_take_a_tenth_of_the_time(tmp_path):
    """Guards against a search whose time goes by while the teacher is asked about forms of examples."""
    made = trainer(tmp_path, augment=["flip", {"name": "crop", "padding": 2}])
    of_one = made.facts.steps * made.facts.output_seconds
    assert of_one > 0
    assert made._affordable_variants(None) == 8
    assert made._affordable_variants(35 * of_one) == 3
    assert made._affordable_variants(of_one) == 1
    made.variants = 3
    assert made._teacher_seconds() == pytest.approx(3 * of_one)
    (tmp_path / "teacher.safetensors").touch()
    assert made._teacher_seconds() == 0
