"""Where weights and sentences of the study come from: installed packages, and data sets in ``ATTAR_DATA``."""

from __future__ import annotations

import gzip
import os
import zipfile
from importlib.util import find_spec
from itertools import islice
from pathlib import Path


def package_folder(name: str) -> Path:
    """Return the folder of an installed package, which is not imported."""
    found = find_spec(name)
    if found is None or not found.submodule_search_locations:
        raise SystemExit(f"the package {name} is not installed; README.md says how to install it")
    return Path(found.submodule_search_locations[0])


def _data() -> Path:
    return Path(os.environ["ATTAR_DATA"])


def captions(count: int) -> list[str]:
    """Return captions of Multi30k (training part)."""
    with gzip.open(_data() / "multi30k" / "train.en.gz", "rt", encoding="utf-8") as file:
        return [line.strip() for line in islice(file, count)]


def paraphrases() -> list[tuple[str, str]]:
    """Return pairs of English sentences that Tatoeba gives one German translation, in the order of the file."""
    archive = zipfile.ZipFile(_data() / "tatoeba" / "deu-eng.zip")
    name = next(each for each in archive.namelist() if each.endswith("deu.txt"))
    by_german: dict[str, list[str]] = {}
    for line in archive.read(name).decode("utf-8").splitlines():
        english, german = line.split("\t")[:2]
        by_german.setdefault(german, []).append(english)
    several = [each for each in by_german.values() if len(set(each)) > 1 and min(map(len, each)) >= 20]
    return [(each[0], each[1]) for each in several]
