"""Readings: values that products read with fewer bits than additions do."""
