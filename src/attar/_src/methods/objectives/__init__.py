"""Distillation: objectives that compare a student with teachers and labels, and the teachers themselves."""
