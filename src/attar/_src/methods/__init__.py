"""The families of methods; each method is one file and one line in its registry."""
