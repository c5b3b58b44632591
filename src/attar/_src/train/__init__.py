"""The training loop, feeds, optimizers and schedules; independent of stages, constraints and files."""
