"""The report of a run: ``report.json`` beside the files, and the page made from it."""
