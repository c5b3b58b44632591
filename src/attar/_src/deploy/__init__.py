"""From a module to a verified file, and back."""
