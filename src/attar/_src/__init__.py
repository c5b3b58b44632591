"""The implementation. Private: what is public is exported by ``attar`` and ``attar.extend``."""
