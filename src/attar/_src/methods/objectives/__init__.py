"""Losses against labels, teachers' outputs and teachers' layers."""
