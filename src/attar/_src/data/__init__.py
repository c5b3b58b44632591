"""Data sets as numpy arrays, with the preprocessing from raw examples to inputs."""
