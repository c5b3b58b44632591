"""Points as SVG: nothing to load, colours from the style sheet, words under the pointer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from attar._src.report.wording import number

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 720, 380, 70, 20, 40, 50
_RADIUS = 6
#: Shapes of groups: path around the origin.
_SHAPES = (
    f"M0,-{_RADIUS + 2}L{_RADIUS + 2},0L0,{_RADIUS + 2}L-{_RADIUS + 2},0Z",
    f"M-{_RADIUS},0a{_RADIUS},{_RADIUS} 0 1,0 {2 * _RADIUS},0a{_RADIUS},{_RADIUS} 0 1,0 -{2 * _RADIUS},0Z",
    f"M-{_RADIUS - 1},-{_RADIUS - 1}h{2 * _RADIUS - 2}v{2 * _RADIUS - 2}h-{2 * _RADIUS - 2}Z",
)


@dataclass(frozen=True)
class DrawnPoint:
    """A point of a drawing.

    Attributes:
        x, y: its place; ``x`` above 0.
        group: index of its group, which has a colour and a shape.
        words: shown under the pointer.
        hollow: whether it is drawn as an outline.
    """

    x: float
    y: float
    group: int
    words: str
    hollow: bool = False


def scatter_svg(points: Sequence[DrawnPoint], groups: Sequence[str], across: str, up: str, alt: str) -> Markup:
    """Return points over a logarithmic and a linear axis as SVG.

    Args:
        points: one or more; those of the first groups are drawn last, over the others.
        groups: words of each group, for the legend.
        across, up: words of the axes.
        alt: the figure in words.
    """
    marks, place = log_ticks(min(each.x for each in points), max(each.x for each in points))
    levels = linear_ticks(min(0.0, *(each.y for each in points)), max(each.y for each in points))
    low, high = levels[0], levels[-1]
    inner = _HEIGHT - _TOP - _BOTTOM

    def height(value: float) -> float:
        return _TOP + inner * (high - value) / (high - low)

    parts = [
        Markup('<svg class="drawing" viewBox="0 0 {} {}" role="img" aria-label="{}">').format(_WIDTH, _HEIGHT, alt)
    ]
    for value in levels:
        parts.append(_line(_LEFT, height(value), _WIDTH - _RIGHT, height(value)))
        parts.append(_text(_LEFT - 8, height(value) + 4, number(value, 3), "end"))
    for value in marks:
        parts.append(_line(place(value), _TOP, place(value), _HEIGHT - _BOTTOM))
        parts.append(_text(place(value), _HEIGHT - _BOTTOM + 18, number(value, 3), "middle"))
    parts.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 8, across, "middle"))
    parts.append(
        Markup('<text transform="translate(16 {:.1f}) rotate(-90)" text-anchor="middle">{}</text>').format(
            _TOP + inner / 2, up
        )
    )
    at = float(_LEFT)
    for group, words in enumerate(groups):
        parts.append(_shape(at + 6, 18, group, hollow=False, words=""))
        parts.append(_text(at + 18, 22, words, "start"))
        at += 34 + 7.2 * len(words)
    for each in sorted(points, key=lambda point: -point.group):
        parts.append(_shape(place(each.x), height(each.y), each.group, hollow=each.hollow, words=each.words))
    parts.append(Markup("</svg>"))
    return Markup("\n").join(parts)


def log_ticks(low: float, high: float) -> tuple[list[float], Callable[[float], float]]:
    """Return ticks of a logarithmic axis, and the place of a value on it.

    Example:
        >>> log_ticks(900.0, 30_000.0)[0]
        [1000.0, 2000.0, 5000.0, 10000.0, 20000.0]
    """
    low, high = low / 1.15, high * 1.15
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    every = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
    marks = [each for each in every if low <= each <= high]
    start, length = math.log(low), math.log(high) - math.log(low)
    inner = _WIDTH - _LEFT - _RIGHT
    return marks, lambda value: _LEFT + inner * (math.log(value) - start) / length


def linear_ticks(low: float, high: float) -> list[float]:
    """Return round numbers around a range.

    Example:
        >>> linear_ticks(0.0, 2.3)
        [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]
    """
    span = max(high - low, 1e-3)
    step = 10.0 ** math.floor(math.log10(span))
    step *= next(factor for factor in (0.2, 0.5, 1.0, 2.0) if span / (factor * step) <= 6)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(place * step, 12) for place in range(first, max(last, first + 1) + 1)]


def _line(x: float, y: float, to_x: float, to_y: float) -> Markup:
    return Markup('<line x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>').format(x, y, to_x, to_y)


def _text(x: float, y: float, words: str, anchor: str) -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(x, y, anchor, escape(words))


def _shape(x: float, y: float, group: int, *, hollow: bool, words: str) -> Markup:
    colour = f"var(--series-{group})"
    title = Markup("<title>{}</title>").format(words) if words else ""
    return Markup('<path d="{}" transform="translate({:.1f} {:.1f})" stroke="{}" fill="{}"{}>{}</path>').format(
        _SHAPES[group % len(_SHAPES)],
        x,
        y,
        colour,
        "var(--paper)" if hollow else colour,
        Markup(' tabindex="0"') if words else "",
        title,
    )
