"""The figures of the page, as Plotly's JSON."""
