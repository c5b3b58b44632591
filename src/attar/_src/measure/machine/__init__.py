"""What a machine tells of itself: energy that it counts, instructions that it has."""
