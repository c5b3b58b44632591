"""Test accuracy of each class, the baseline beside the other models."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from attar._src.report.figures.plot import SYMBOLS, Figure, Plot, axis, categories, colour, series, text
from attar._src.report.story import ReportedModel, Story
from attar._src.report.wording import plural, points, share

#: Classes shown at most; the page says so.
MOST_CLASSES = 40


def classes_plot(story: Story) -> Plot:
    """Return the test accuracy of each class; collapsed classes are crosses."""
    labels = shown_classes(story)
    if not labels:
        return Plot("classes", (), ())
    order = [story.baseline, *story.others]
    asides = [0.5 * ((slot + 0.5) / len(order) - 0.5) for slot in range(len(order))]
    dots = [_dots(story, model, labels, aside) for model, aside in zip(order, asides, strict=True)]
    data = [each for each in dots if each["x"]]
    low = max(0.0, min(value for each in data for value in each["y"]) - 5)
    layout = {
        "height": 380,
        "xaxis": categories(labels, "class", showgrid=False),
        "yaxis": axis("test accuracy (%)", range=[low, 100 + 0.04 * (100 - low)], zeroline=False),
    }
    lost = [f"{change.label} of {name}" for name, changes in story.collapsed.items() for change in changes]
    alt = f"Test accuracy of {plural(len(labels), 'class')} for {plural(len(data), 'model')}. "
    alt += f"Collapsed: {', '.join(lost)}." if lost else "No class collapsed."
    every = len(story.baseline.measured.per_class or {})
    note = f"The {len(labels)} classes that changed most, of {every}; all are in report.json."
    return Plot("classes", (), [Figure((), data, layout, alt, note if every > len(labels) else "")])


def _dots(story: Story, model: ReportedModel, labels: list[str], aside: float) -> dict[str, Any]:
    per_class, i = model.measured.per_class or {}, story.models.index(model)
    at = {k: label for k, label in enumerate(labels) if label in per_class}
    gone = {change.label: change for change in story.collapsed.get(model.name, ())}
    hover = []
    for label in at.values():
        loss = [f"collapsed: {points(gone[label].change)} points"] if label in gone else []
        hover.append(text(f"class {label}", f"{model.name}: {share(per_class[label])}", *loss))
    marker = {
        "opacity": 1,
        "size": [15 if label in gone else 10 for label in at.values()],
        "symbol": ["x" if label in gone else SYMBOLS[i % len(SYMBOLS)] for label in at.values()],
        "color": ["--alarm" if label in gone else colour(i) for label in at.values()],
    }
    x, y = [k + aside for k in at], [100 * per_class[label] for label in at.values()]
    return series("scatter", model.name, x, y, hover, mode="markers", marker=marker)


def shown_classes(story: Story) -> list[str]:
    """Return the classes shown: all, or those that lost most in any model."""
    labels = list(story.baseline.measured.per_class or {})
    if len(labels) <= MOST_CLASSES:
        return labels
    worst: dict[str, float] = defaultdict(float)
    for changes in story.changes.values():
        for change in changes:
            worst[change.label] = max(worst[change.label], -change.change)
    first = set(sorted(labels, key=lambda label: -worst[label])[:MOST_CLASSES])
    return [label for label in labels if label in first]
