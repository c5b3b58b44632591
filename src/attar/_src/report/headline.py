"""Key figures and alarms at the head of the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from attar._src.core.format_bytes import format_bytes
from attar._src.report.collapse import Change
from attar._src.report.story import Story
from attar._src.report.wording import count, listed, metric, plural, share, times


@dataclass(frozen=True)
class Tile:
    """A key figure: ``test accuracy``, ``97.88 %``, ``teacher: 98.60 %``."""

    name: str
    value: str
    detail: str


@dataclass(frozen=True)
class Alarm:
    """Sentences that the reader should see first, each with the model it is about; ``note`` explains them."""

    title: str
    sentences: Sequence[tuple[str, str]]
    note: str


def tiles(story: Story) -> list[Tile]:
    """Return size, ratio, test metric and speed of the main model, as far as they were measured."""
    main, baseline, name = story.main, story.baseline, story.run.metric
    found = [
        Tile("whole file", format_bytes(main.file_bytes), f"{count(main.file_bytes)} bytes"),
        Tile("smaller", times(main.times_smaller), f"than the FP32 weights of {baseline.name}"),
    ]
    if main.measured.metric_mean is not None:
        detail = f"on {count(story.run.examples)} test examples" if story.run.examples else "on the test set"
        if main is not baseline and baseline.measured.metric_mean is not None:
            detail = f"{baseline.name}: {metric(baseline.measured.metric_mean, name)}"
        found.append(Tile(f"test {name}", metric(main.measured.metric_mean, name), detail))
    gain = main.times_faster
    if main is not baseline and gain is not None:
        word, ratio = ("faster", gain) if gain >= 1 else ("slower", 1 / gain)
        found.append(Tile(word, times(ratio), f"than {baseline.name}, median"))
    return found


def alarms(story: Story) -> list[Alarm]:
    """Return the warnings of all models and the collapsed classes of all models, as far as there are any."""
    said = [(name, each) for name, warnings in story.warnings.items() for each in warnings]
    lost = [(name, f"lost {_lost(story, changes)}.") for name, changes in story.collapsed.items()]
    found = [
        Alarm(plural(len(said), "warning"), said, "Each was found when the file was made. Read it before the figures."),
        Alarm(
            "Classes collapsed",
            lost,
            "The mean hides it: each of these classes lost more than ten points beyond what the others lost, and more "
            "than chance would explain. Look at them before this file is used.",
        ),
    ]
    return [alarm for alarm in found if alarm.sentences]


def _lost(story: Story, changes: Sequence[Change]) -> str:
    """Return ``class 8 (99.0 % to 61.0 %)``, of several classes listed."""
    return listed([f"{class_title(story, c.label)} ({share(c.before)} to {share(c.after)})" for c in changes])


def class_title(story: Story, label: str) -> str:
    """Return a class by its label and, if the file names it differently, its name: ``class 3 (cat)``."""
    names: Sequence[str] = story.main.contents["class_names"]
    if not label.isdecimal():
        return label
    name = names[int(label)] if int(label) < len(names) else label
    return f"class {label}" if name == label else f"class {label} ({name})"
