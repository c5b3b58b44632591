"""Test accuracy of each class, the baseline beside the other models."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from attar._src.report.figures.plot import SYMBOLS, Figure, Plot, axis, categories, colour, text
from attar._src.report.story import Story
from attar._src.report.wording import plural, points, share, short

#: Classes shown at most; the page says so.
MOST_CLASSES = 40


def classes_plot(story: Story) -> Plot:
    """Return the test accuracy of each class; collapsed classes are crosses."""
    labels = shown_classes(story)
    if not labels:
        return Plot("classes", (), ())
    of_all = story.baseline.measured.per_class or {}
    data: list[dict[str, Any]] = []
    order = [story.baseline, *story.others]
    for slot, model in enumerate(order):
        per_class = model.measured.per_class or {}
        at = [i for i, label in enumerate(labels) if label in per_class]
        if not at:
            continue
        i = story.models.index(model)
        gone = {change.label: change for change in story.collapsed.get(model.name, ())}
        hover = [
            text(
                f"class {labels[k]}",
                f"{model.name}: {share(per_class[labels[k]])}",
                *([f"collapsed: {points(gone[labels[k]].change)} points"] if labels[k] in gone else []),
            )
            for k in at
        ]
        aside = 0.5 * ((slot + 0.5) / len(order) - 0.5)
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": text(short(model.name)),
                "x": [k + aside for k in at],
                "y": [100 * per_class[labels[k]] for k in at],
                "marker": {
                    "opacity": 1,
                    "size": [15 if labels[k] in gone else 10 for k in at],
                    "symbol": ["x" if labels[k] in gone else SYMBOLS[i % len(SYMBOLS)] for k in at],
                    "color": ["--alarm" if labels[k] in gone else colour(i) for k in at],
                },
                "hovertext": hover,
                "hoverinfo": "text",
            }
        )
    values = [value for trace in data for value in trace["y"]]
    low = max(0.0, min(values) - 5)
    layout = {
        "height": 380,
        "xaxis": categories(labels, "class", showgrid=False),
        "yaxis": axis("test accuracy (%)", range=[low, 100 + 0.04 * (100 - low)], zeroline=False),
    }
    lost = [f"{change.label} of {name}" for name, changes in story.collapsed.items() for change in changes]
    alt = f"Test accuracy of {plural(len(labels), 'class')} for {plural(len(data), 'model')}. "
    alt += f"Collapsed: {', '.join(lost)}." if lost else "No class collapsed."
    cut = len(of_all) - len(labels)
    note = f"The {len(labels)} classes that changed most, of {len(of_all)}; all are in report.json." if cut else ""
    return Plot("classes", (), [Figure((), data, layout, alt, note)])


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
