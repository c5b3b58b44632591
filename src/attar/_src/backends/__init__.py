"""Backends: a file in the form another runtime takes; beside ``methods`` and ``report``, above ``work``."""
