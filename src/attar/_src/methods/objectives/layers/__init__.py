"""Losses on intermediate layers of student and teacher."""
