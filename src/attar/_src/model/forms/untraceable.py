"""Why a module cannot be traced, in a user's words, before the words of the exporter."""

from __future__ import annotations

from attar._src.core.errors import place_of, short_message

_DECIDES = (
    "its code decides by the values of a tensor (an if, a loop, int(x) or x.item() of one), and a graph computes the "
    "same for all values: write torch.where(condition, a, b), or give a module with one of the branches"
)
#: Part of the exporter's message -> what it means and what to write instead; the first that fits.
_REASONS = {
    "specialized it to be a constant": (
        "its code fixes the length of an axis that should vary, as len(x) and int(x.shape[0]) do; write x.shape[0], or "
        "fix the axis with dynamic=() (--fixed-batch N)"
    ),
    "data-dependent": _DECIDES,
    "Dynamic control flow": _DECIDES,
    "_local_scalar_dense": _DECIDES,
    ".numpy() is not supported": (
        "its code leaves PyTorch for numpy, which a graph cannot record: write it with torch functions, or do it "
        "before, as preparation of the data"
    ),
}


def explain_untraceable(error: BaseException) -> str:
    """Return why torch.export failed: the reason with the way out if it is known, the user's line, the raw message."""
    raw = short_message(error)
    reason = next((f"{why}. PyTorch: " for part, why in _REASONS.items() if part in raw), "")
    place = place_of(error)
    return f"{reason}{raw}{f' ({place})' if place else ''}"
