"""A recipe executed: data and modules prepared, models trained and packed."""
