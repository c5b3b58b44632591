"""Measures a file: accuracy, latency, cold start, memory; above ``runtime``, beside ``data``.

What is measured is the decoded file on the runtime that will serve it, never the module it was made from.
"""

from attar.measure.accuracy import Accuracy, evaluate
from attar.measure.cold import Cold, cold_start
from attar.measure.latency import Latency, interleave
from attar.measure.runner import Runner, open_runner

__all__ = [
    "Accuracy",
    "Cold",
    "Latency",
    "Runner",
    "cold_start",
    "evaluate",
    "interleave",
    "open_runner",
]
