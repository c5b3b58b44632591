"""Two sections of the page: which layers ran in integers, and what stayed in floating point."""

from __future__ import annotations

from attar._src.report.content import Details, PageSection, PageTable
from attar._src.report.story import Story
from attar._src.report.wording import plural


def integer_layers(story: Story) -> PageSection:
    """Return the section that says where each layer of each file ran, and why it did not run in integers."""
    folds = []
    for model in story.models:
        layers = model.measured.layers
        if not layers:
            continue
        whole = sum(layer.integer for layer in layers)
        rows = [[layer.name, layer.kernel, "integer" if layer.integer else "float", layer.reason] for layer in layers]
        table = PageTable(f"Layers of {model.name}", ["Layer", "Kernel", "Ran in", "Why not"], rows)
        title = f"{whole} of {plural(len(layers), 'layer')} ran in integers"
        folds.append(Details(title, model.name, table, opened=model is story.main))
    text = "As the runtime's own profile of one run says, layer by layer." if folds else ""
    return PageSection("integers", "What ran in integers", text, folds=folds)


def float_layers(story: Story) -> PageSection:
    """Return the section that lists what each model keeps in floating point, with the reason, and notes on its file."""
    folds = []
    for model in story.models:
        kept, notes = list(model.measured.left_in_floating_point.items()), list(model.measured.notes.items())
        if kept:
            table = PageTable(f"Left in floating point in {model.name}", ["What", "Why"], kept)
            folds.append(Details(plural(len(kept), "tensor or value"), model.name, table, opened=model is story.main))
        if notes:
            table = PageTable(f"Notes on {model.name}", ["What", "Note"], notes)
            folds.append(Details(plural(len(notes), "note"), model.name, table, opened=model is story.main))
    said = any(model.measured.left_in_floating_point for model in story.models)
    text = "" if said else "The run left nothing in floating point that it was asked to quantize."
    return PageSection("floats", "What was left in floating point", text, folds=folds)
