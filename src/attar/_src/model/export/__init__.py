"""What stands between a captured program and its export: its modes, operators written differently, errors in words."""
