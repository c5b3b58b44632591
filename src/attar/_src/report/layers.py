"""Layers: what ran in integers and what did not, what was left in floating point; two sections of the page."""

from __future__ import annotations

from attar._src.report.markup import Html, join, table_markup, tag
from attar._src.report.story import Story
from attar._src.report.wording import count, plural

#: Rows of a table at most; the page says how many there are.
MOST_LAYERS = 200


def ran(story: Story) -> Html:
    """Return where every layer of every file ran, and why it did not run in integers."""
    parts = []
    for model in story.models:
        layers = model.measured.layers
        if not layers:
            continue
        whole = sum(layer.integer for layer in layers)
        rows = [[layer.name, layer.kernel, "integer" if layer.integer else "float", layer.reason] for layer in layers]
        said = f"{whole} of {plural(len(layers), 'layer')} ran in integers"
        head = tag("summary", tag("strong", model.name), f": {said}")
        made = table_markup(f"Layers of {model.name}", ["Layer", "Kernel", "Ran in", "Why not"], rows[:MOST_LAYERS])
        parts.append(tag("details", head, made, _cut(len(rows)), open=model is story.main))
    if not parts:
        return Html("")
    said = "As the runtime's own profile of one run says, layer by layer."
    return join([tag("p", said), *parts])


def left(story: Story) -> Html:
    """Return what each model keeps in floating point, and why."""
    parts = []
    for model in story.models:
        kept = model.measured.left
        if not kept:
            continue
        made = table_markup(
            f"Left in floating point in {model.name}", ["What", "Why"], list(kept.items())[:MOST_LAYERS]
        )
        head = tag("summary", tag("strong", model.name), f": {plural(len(kept), 'tensor or value')}")
        parts.append(tag("details", head, made, _cut(len(kept)), open=model is story.main))
    return join(parts) if parts else tag("p", "The run left nothing in floating point that it was asked to quantize.")


def _cut(rows: int) -> Html:
    said = f"The first {MOST_LAYERS} of {count(rows)}; all are in report.json."
    return tag("p", said, class_="note") if rows > MOST_LAYERS else Html("")
