"""Files of a module for a stated goal: what may be lost, and how many bytes and milliseconds a file may take."""
