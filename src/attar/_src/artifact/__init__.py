"""The file: what it holds, writing it, reading it (``docs/format.md``)."""
