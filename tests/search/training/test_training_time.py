"""How long trainings of a search are, and what is done with the time that is left."""

import time
from types import SimpleNamespace

import pytest

from attar._src.core.errors import SpecError, prefixed_errors
from attar._src.search import goal_search, search_folder
from attar._src.search.comparison.comparison_folder import ComparisonFolder
from attar._src.search.goal import Goal
from attar._src.search.goal_search import GoalSearch
from attar._src.search.plan import SearchStep
from attar._src.search.search_folder import SearchFolder
from attar._src.search.training import trainer as trainers
from attar._src.search.training.next_trained import TrainedStep
from attar._src.search.training.parts import TrainingParts
from attar._src.search.training.student_facts import StudentFacts
from attar._src.search.training.trainer import Trainer
from attar._src.search.tried_file import TriedFile
from attar._src.work.size_budget import BudgetError

STEP = TrainedStep("distilled", {"max_bytes": 9_000})


@pytest.fixture
def trainer(tmp_path):
    """Of a module whose epoch takes 2 s on learned grids: 100 plain steps of 10 ms."""
    made = Trainer(TrainingParts({}, {}), {}, tmp_path)
    made._facts = StudentFacts(
        weights=20_000,
        vectors=100,
        channels=100,
        layers=0,
        examples=6400,
        labels=True,
        batch=64,
        optimizer={"name": "sgd", "lr": 0.03},
        step_seconds=0.01,
    )
    return made


@pytest.mark.parametrize("minutes", [3, 5, 10, 20, 40, 120])
def test_trainings_are_long_enough_to_be_worth_it_and_several_fit(trainer, minutes):
    """Guards against a short time that is spent on many trainings too short to hold anything."""
    epochs = trainer.choose_epochs(60 * minutes)
    whole = 10 + 2 * epochs
    assert 3.5 * whole <= 60 * minutes
    # Thirty are usual for so few examples: fewer only where four trainings would not fit otherwise.
    assert epochs >= 30 or 4 * (whole + 2) > 60 * minutes
    assert epochs <= 60
    if minutes == 3:
        assert epochs == 17


def test_epochs_that_were_asked_for_are_not_changed(tmp_path):
    made = Trainer(TrainingParts({}, {}, epochs=7), {}, tmp_path)
    assert made.choose_epochs(1.0) == 7


def cut(folder, name, seconds, monkeypatch):
    """Interrupt a step after some seconds."""
    clock = iter((100.0, 100.0 + seconds))
    with monkeypatch.context() as patched:
        patched.setattr(search_folder, "time", SimpleNamespace(monotonic=lambda: next(clock)))
        with pytest.raises(KeyboardInterrupt), folder.counting_cuts(name):
            raise KeyboardInterrupt


def searched(trainer, seconds):
    folder = SearchFolder(trainer.folder / "s", resume=True)
    folder.begin({})
    return GoalSearch(
        folder,
        Goal(max_bytes=9_000),
        maker=None,
        seconds=seconds,
        started=time.monotonic(),
        say=print,
        trainer=trainer,
        before=folder.spent(),
    )


def test_a_training_for_which_there_is_no_time_has_fewer_epochs_if_they_are_enough(trainer):
    """Guards against time that is left unused, and against a search that overruns it."""
    trainer.epochs = 30
    step = SearchStep("a size", {}, "way", STEP)
    assert searched(trainer, 20)._fitting(step) is None
    shorter = searched(trainer, 60)._fitting(step)
    assert 12 <= shorter.trained.epochs < 30
    assert trainer.expected(shorter.trained) <= 60
    assert trainer.stages(shorter.trained)[-1]["epochs"] == shorter.trained.epochs
    # A search that was cut in it goes on with the same, whatever time is left.
    assert searched(trainer, 10)._fitting(step) == shorter
    assert searched(trainer, None)._fitting(step) == shorter
    other = SearchStep("another", {}, "way", STEP)
    assert searched(trainer, 20)._fitting(other) is None
    assert searched(trainer, 200)._fitting(other) is other


@pytest.mark.parametrize(("first", "then"), [(90, 90), (None, 60), (90, 10), (90, None)])
def test_a_whole_training_that_was_cut_goes_on_whole(trainer, first, then, monkeypatch):
    """Guards against fewer epochs in the time that is left, which the folder of the training would refuse."""
    trainer.epochs = 30
    step = SearchStep("a size", {}, "way", STEP)
    assert searched(trainer, first)._fitting(step) is step
    cut(SearchFolder(trainer.folder / "s", resume=True), step.name, 40.0, monkeypatch)
    assert searched(trainer, then)._fitting(step) is step


def test_a_training_that_was_cut_took_all_its_parts(trainer, monkeypatch):
    """Guards against a second training for which there seems to be time, as the last part of the first was short."""
    trainer.epochs = 30
    step = SearchStep("a size", {}, "way", STEP)
    whole = trainer.expected(STEP) / trainer.plain_seconds(trainer.stages(STEP))
    search = searched(trainer, None)
    cut(search.folder, step.name, trainer.plain_seconds(trainer.stages(STEP)), monkeypatch)
    search.maker = SimpleNamespace(solved=lambda _: False)
    made = TriedFile(name=step.name, options={}, file_bytes=10, drop=0.0, unit="points", ms=1.0, seconds=0.5)
    monkeypatch.setattr(search, "_made", lambda *_: made)
    search._take(step)
    assert trainer.expected(STEP) / trainer.plain_seconds(trainer.stages(STEP)) >= whole
    trainer._slower.clear()
    trainer.epochs = 0
    search.files = [made.model_copy(update={"way": "distilled", "stages": trainer.stages(STEP)})]
    assert search._can_train(trainer)
    assert trainer.expected(STEP) >= trainer.plain_seconds(trainer.stages(STEP))


def test_more_time_is_not_asked_for_where_it_could_not_help(trainer, monkeypatch):
    """Guards against `no time for: 2 bits` where 2 bits have more bytes than the goal allows in any time."""
    search = searched(trainer, 30)
    made = TriedFile(name="floating point", options={}, file_bytes=90_000, drop=0.0, unit="points", ms=1.0)
    search.files, search.maker = [made], SimpleNamespace(solved=lambda _: True, held=SimpleNamespace(examples=10))
    search.folder.add(made)
    search.times.add("see", 1_000)
    (search.folder.path / made.file).mkdir(exist_ok=True)
    steps = iter([SearchStep("2 bits", {}, "see", nearest=True), SearchStep("4 bits", {}, "see"), None])
    monkeypatch.setattr(search, "_next", lambda: next(steps))
    monkeypatch.setattr(search.folder, "begin", lambda _: ([made], {}))
    monkeypatch.setattr(search.folder, "finish", lambda _: None)
    monkeypatch.setattr(goal_search.StepTimes, "of", lambda _: search.times)
    found = search.run({})
    assert found.skipped == ("4 bits",)
    assert "would be nearer" in found.failed["2 bits"]


def test_a_budget_that_leaves_nothing_for_codes_is_told_without_a_recipe(trainer, monkeypatch):
    """Guards against advice on fields of a recipe that whoever gave --max-bytes has never seen."""

    def refuse(*_, **__):
        with prefixed_errors("recipe.models.student.stages.2"), prefixed_errors("loss rate"):
            raise BudgetError("a file of 900 bytes has 90 bytes beside its graph", "share scales (granularity: tensor)")

    monkeypatch.setattr(trainers, "run_trial", refuse)
    monkeypatch.setattr(trainers, "prepare_run", lambda _: None)
    monkeypatch.setattr(Trainer, "recipe", lambda *_: None)
    with pytest.raises(SpecError) as caught:
        trainer.run([], "900 bytes, trained, shallower", trainer.folder / "x.attar")
    assert str(caught.value) == "no file is so small this way: a file of 900 bytes has 90 bytes beside its graph"


def test_how_long_trainings_are_is_decided_only_when_there_is_time(trainer, monkeypatch):
    """Guards against trainings of three epochs that go on so, with more time, because the first call had none left."""
    monkeypatch.setattr(goal_search, "next_step", lambda *_: None)
    search = searched(trainer, 1e-6)
    assert search._next() is None
    assert search.skipped == ["training"]
    assert search.folder.decided("epochs of a training") is None
    assert trainer.epochs == 0
    longer = searched(trainer, 600)
    assert longer._next() is None
    assert (longer.skipped, trainer.epochs) == ([], trainer.choose_epochs(600))


@pytest.mark.parametrize("kind", [SearchFolder, ComparisonFolder])
def test_the_time_of_a_cut_step_counts(kind, tmp_path, monkeypatch):
    """Guards against a search, or comparison, that takes its whole time again each time that it goes on."""
    folder = kind(tmp_path, resume=True)
    folder.begin({"goal": 1})
    assert folder.going_on(0) == ""
    cut(folder, "a size", 12.5, monkeypatch)
    cut(folder, "a size", 60.0, monkeypatch)
    again = kind(tmp_path, resume=True)
    again.begin({"goal": 1})
    assert again.spent() == again.cut_seconds("a size") == 72.5
    assert again.going_on(3) == "goes on with 3 files; 1:12 were spent before"
