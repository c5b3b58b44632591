"""The shorter layout of format 1.4: what its manifest leaves out, and DEFLATE with dictionaries."""
