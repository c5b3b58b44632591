"""What several commands share: texts of options as values, and the inputs that --data names."""
