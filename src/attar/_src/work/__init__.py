"""What is worked on and what works: the workpiece, and stages that turn one into the next."""
