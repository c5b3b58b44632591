"""All plots of the page, as Plotly's JSON; Plotly is not needed to make them."""

from __future__ import annotations

from attar._src.report.figures.bytes import bytes_plot
from attar._src.report.figures.classes import classes_plot
from attar._src.report.figures.curves import curves
from attar._src.report.figures.grids import grids
from attar._src.report.figures.plot import Plot
from attar._src.report.figures.trade import trade_plot
from attar._src.report.story import Story


def plots(story: Story) -> dict[str, Plot]:
    """Return every plot the story has numbers for, by name."""
    made = [trade_plot(story), bytes_plot(story), grids(story), curves(story), classes_plot(story)]
    return {plot.name: plot for plot in made if plot.figures}
