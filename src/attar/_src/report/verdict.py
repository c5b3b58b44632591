"""The verdict on a run: one sentence of measured numbers."""

from __future__ import annotations

import math

from attar._src.core.format_bytes import format_bytes
from attar._src.report.story import ReportedModel, Story
from attar._src.report.wording import count, is_share, listed, metric, milliseconds, plural, short, times

#: Medians closer than this count as equal; even an idle machine varies by a few per cent.
_SAME_SPEED = 0.05


def verdict(story: Story) -> str:
    """Return the result of the run in one sentence."""
    main, baseline = story.main, story.baseline
    if main is baseline:
        return _alone(story)
    name, other = short(main.name), short(baseline.name)
    gain = main.times_smaller
    smaller = f"{times(gain)} smaller" if gain >= 1 else f"{times(1 / gain)} larger"
    parts = [f"is {smaller} as a whole file ({count(main.file_bytes)} bytes) than the FP32 weights of {other}"]
    parts += [text for text in (_quality(story), _speed(main, baseline)) if text]
    return f"{name} {listed(parts)}{_but(story)}."


def noise(story: Story) -> float | None:
    """Return two standard errors of the difference of two accuracies on this test set; None for other metrics.

    They are those of independent samples, and too large for models that saw the same examples.
    """
    if not is_share(story.run.metric) or not story.run.examples or story.main is story.baseline:
        return None
    shares = [model.measured.metric_mean for model in (story.main, story.baseline)]
    known = [share for share in shares if share is not None and 0 <= share <= 1]
    return 2 * math.sqrt(sum(p * (1 - p) for p in known) / story.run.examples) if len(known) == 2 else None


def _but(story: Story) -> str:
    """Return what speaks against the main model: ``, but 2 classes have collapsed and there is 1 warning``."""
    lost, warned = len(story.collapsed.get(story.main.name, ())), len(story.main.measured.warnings)
    found = [f"{plural(lost, 'class')} {'has' if lost == 1 else 'have'} collapsed"] if lost else []
    found += [f"there {'is' if warned == 1 else 'are'} {plural(warned, 'warning')}"] if warned else []
    return f", but {listed(found)}" if found else ""


def _alone(story: Story) -> str:
    model, name = story.main, short(story.main.name)
    parts = [f"takes {format_bytes(model.file_bytes)}, {times(model.times_smaller)} less than its weights in FP32"]
    if model.times_smaller < 1:
        weights = format_bytes(model.measured.fp32_bytes)
        parts = [f"takes {format_bytes(model.file_bytes)}; its weights in FP32 alone take {weights}"]
    if model.measured.metric_mean is not None:
        parts.append(f"reaches {_reached(story, model)}")
    if model.measured.latency is not None:
        parts.append(f"answers in {milliseconds(model.measured.latency.median_ms)}")
    return f"{name} {listed(parts)}{_but(story)}."


def _reached(story: Story, model: ReportedModel) -> str:
    on = f" on {count(story.run.examples)} test examples" if story.run.examples else ""
    return f"a test {story.run.metric} of {metric(model.measured.metric_mean, story.run.metric)}{on}"


def _quality(story: Story) -> str:
    mine, theirs = story.main.measured.metric_mean, story.baseline.measured.metric_mean
    if mine is None or theirs is None:
        return ""
    name, seeds = story.run.metric, len(story.main.measured.metric_per_seed)
    figures = f"{metric(mine, name)} against {metric(theirs, name)}" + (f", mean of {seeds} seeds" if seeds > 1 else "")
    if not is_share(name):
        return f"has a test {name} of {figures}"
    gap = f"{abs(100 * (mine - theirs)):.1f}"
    if gap == "0.0":
        return f"is as accurate on the test set ({figures})"
    unit = "point" if gap == "1.0" else "points"
    return f"is {gap} {unit} {'more' if mine > theirs else 'less'} accurate on the test set ({figures})"


def _speed(main: ReportedModel, baseline: ReportedModel) -> str:
    faster, mine, theirs = main.times_faster, main.measured.latency, baseline.measured.latency
    if faster is None or mine is None or theirs is None or not math.isfinite(faster) or faster <= 0:
        return ""
    figures = f"{milliseconds(mine.median_ms)} against {milliseconds(theirs.median_ms)}"
    if abs(faster - 1) <= _SAME_SPEED:
        return f"answers about as fast ({figures})"
    return f"answers {times(faster if faster > 1 else 1 / faster)} {'faster' if faster > 1 else 'slower'} ({figures})"
