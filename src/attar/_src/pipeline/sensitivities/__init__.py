"""``attar.sensitivity``: a resumable measurement in a folder of its own."""
