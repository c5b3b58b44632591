"""``attar.prune``, and files of modules from which channels were removed."""
