"""The main path: from a module to a verified file, and back."""
