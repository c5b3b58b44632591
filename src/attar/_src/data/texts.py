"""Texts and labels in a file, before a tokenizer: ``text:PATH``."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attar._src.core.errors import DataError, UnknownName, missing_file

TEXT = "text"
_COLUMNS = ("text", "text_pair", "label")
_FORMS = "a text a line (.txt), or columns text, text_pair and label (.tsv, .csv, .jsonl), each also as .gz"


@dataclass(frozen=True, eq=False)
class Texts:
    """Texts of one split: one or two of each example, and perhaps its label, a number or a word."""

    texts: tuple[str, ...]
    pairs: tuple[str, ...] = ()
    labels: tuple[Any, ...] = ()
    name: str = ""

    def __len__(self) -> int:
        return len(self.texts)

    def subset(self, n: int, seed: int = 0) -> Texts:
        """Return ``n`` different random examples; the same seed gives the same ones."""
        return self.take(np.random.RandomState(seed).permutation(len(self))[:n].tolist())

    def take(self, places: Sequence[int]) -> Texts:
        """Return the examples at ``places``, in that order."""
        texts, pairs, labels = (tuple(each[i] for i in places) if each else () for each in self._columns())
        return replace(self, texts=texts, pairs=pairs, labels=labels)

    def take_first(self, n: int | None) -> Texts:
        """Return the first ``n`` examples; all if None."""
        return self.take(range(len(self))[:n])

    def targets(self, classes: Mapping[str, int]) -> NDArray[Any] | None:
        """Return the labels: integers as int64, other numbers as float32, words by ``classes``; None without labels.

        Raises:
            DataError: a word is no class.
        """
        if not self.labels:
            return None
        for kind in (np.int64, np.float32):
            try:
                return np.array(list(map(str, self.labels))).astype(kind)
            except ValueError:
                continue
        unknown = next((str(label) for label in self.labels if str(label) not in classes), None)
        if unknown is not None:
            raise DataError(f"{self.name}: {UnknownName('label', unknown, classes)}; or give the number of the class")
        return np.array([classes[str(label)] for label in self.labels], np.int64)

    def _columns(self) -> tuple[tuple[Any, ...], ...]:
        return self.texts, self.pairs, self.labels


def read_texts(path: str, split: str) -> Texts:
    """Return the texts of a file; ``{split}`` in its path is replaced: ``reviews-{split}.tsv``.

    | file     | examples                                                                |
    |----------|-------------------------------------------------------------------------|
    | ``.txt`` | one a line; empty lines are skipped                                     |
    | ``.tsv``, ``.csv`` | rows; the first has the names ``text``, and perhaps ``text_pair`` and ``label`` |
    | ``.jsonl`` | objects with these keys                                               |

    Raises:
        DataError: the file is missing, empty, none of these or malformed.
    """
    place = Path(path.replace("{split}", split)).expanduser()
    if not place.is_file():
        raise DataError(f"{TEXT}: {missing_file(place)}")
    rows = _rows(place)
    missing = next((key for row in rows for key in rows[0] if row.get(key) is None), None)
    if not rows or missing:
        what = f"an example lacks {missing}" if rows else "it holds no text"
        raise DataError(f"{place}: {what}; write {_FORMS}")
    if any(not isinstance(row[key], str) for row in rows for key in _COLUMNS[:2] if key in row):
        raise DataError(f"{place}: a text is not a string; write {_FORMS}")
    found = {key: tuple(row[key] for row in rows) for key in rows[0]}
    return Texts(found["text"], found.get("text_pair", ()), found.get("label", ()), place.name)


def _rows(path: Path) -> list[dict[str, Any]]:
    """Return the examples of a file, each with the columns that are known."""
    packed = path.suffix == ".gz"
    kind = Path(path.stem).suffix if packed else path.suffix
    try:
        raw = gzip.decompress(path.read_bytes()) if packed else path.read_bytes()
        text = raw.decode("utf-8-sig")
        if kind in (".tsv", ".csv"):
            form: dict[str, Any] = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if kind == ".tsv" else {}
            rows: list[Any] = list(csv.DictReader(io.StringIO(text, newline=""), **form))
        elif kind == ".jsonl":
            rows = [json.loads(line) for line in text.split("\n") if line.strip()]
        elif kind == ".txt":
            rows = [{"text": line.strip()} for line in text.split("\n") if line.strip()]
        else:
            raise DataError(f"{path}: {kind or 'no'} ending; write {_FORMS}")
    except (OSError, EOFError, ValueError, csv.Error, RecursionError) as error:
        raise DataError(f"{path}: {error}; write {_FORMS}, in UTF-8") from error
    if rows and not (isinstance(rows[0], dict) and "text" in rows[0]):
        columns = f"the columns {', '.join(map(str, rows[0]))}" if isinstance(rows[0], dict) else "no objects"
        raise DataError(f"{path} has {columns} and none that is called text; write {_FORMS}")
    known = [key for key in _COLUMNS if rows and key in rows[0]]
    return [{key: row.get(key) if isinstance(row, dict) else None for key in known} for row in rows]
