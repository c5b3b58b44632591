"""Data sets as numpy arrays with the preprocessing that turns their raw examples into inputs; above ``runtime``."""
