"""The ``.attar`` file: its records, writer and reader (``docs/format.md``)."""
