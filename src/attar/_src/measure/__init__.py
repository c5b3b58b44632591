"""Measurements of a decoded file on the runtime that serves it: accuracy, latency, cold start, memory."""
