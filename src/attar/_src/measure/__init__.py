"""Measures a file: accuracy, latency, cold start, memory; above ``runtime``, beside ``data``.

What is measured is the decoded file on the runtime that will serve it, never the module it was made from.
"""
