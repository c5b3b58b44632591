"""Hostile files, re-sealed with right checksums so that they reach the code behind them."""
