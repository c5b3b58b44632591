"""What a graph in a file may hold, and what is left out when one is written."""
