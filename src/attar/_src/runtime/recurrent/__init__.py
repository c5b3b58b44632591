"""Dynamic LSTMs and GRUs of a lowered graph."""
