"""Bank: what a teacher says of every training example, in every form it is trained in, computed once and kept on disk.

A file of safetensors, ``logits`` in half precision ``(examples, variants, ...)`` and the number of each ``variant``.
It is exact, to that rounding, where the variants of the augmentation are counted: a crop with four pixels of padding
and a flip have 162, which for CIFAR-10 are 50,000 x 162 x 10 x 2 bytes = 162 MB. A random subset of them for each
example is less, and the feed then draws from these alone (Beyer et al. 2022, "Knowledge distillation: a good teacher
is patient and consistent", section 3.1, on why teacher and student have to see the same crop).

The file grows row by row under another name until it is whole, so that work that was cut short goes on; the batches
are the same ones however often that was, and so are the bytes.
"""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from attar._src.core.digest import array_bytes, digest
from attar._src.core.errors import AttarError, ModelError, SpecError
from attar._src.core.progress import track
from attar._src.train.feed import ArrayFeed
from attar._src.train.seeds import derive_seed
from attar._src.work.context import Teacher

_KEY = "attar-bank-1"
_ROWS = 1024
_BLANK = "0" * 8  # what stands for the checksum until it is known
_PLACE = f'"{_KEY}":"'.encode()  # and comes before it


class KnownTeacher(Teacher, Protocol):
    """A teacher that can be told from others, so that what it says can be kept."""

    @property
    def fingerprint(self) -> str:
        """Text that no other teacher has: other weights, another program, another precision."""
        ...


@dataclass(frozen=True, eq=False)
class TeacherCache:
    """A cache that is whole.

    Attributes:
        path: its file.
        logits: float16 ``(examples, k, ...)``, mapped from the file: what is not looked up is not read.
        variant: int64 ``(examples, k)``: which variants these are; None where they are all, in order.
        facts: what it was made of: hashes of teacher, data and form of the inputs, and how variants were chosen.
    """

    path: Path
    logits: Tensor
    variant: Tensor | None
    facts: Mapping[str, str | int | None]

    def look_up(self, index: Tensor, variant: Tensor | None) -> Tensor:
        """Return what the teacher says of given variants of given examples, float32 ``(n, ...)``.

        Args:
            index: int64 ``(n,)``.
            variant: int64 ``(n,)``.

        Raises:
            SpecError: an example or variant is not in the cache.
        """
        if variant is None:
            raise SpecError(_ENDLESS)
        index, variant = index.cpu(), variant.cpu()
        if len(index) and int(index.max()) >= len(self.logits):
            raise SpecError(f"{self.path} has {len(self.logits)} examples, {int(index.max())} was asked for")
        if self.variant is None:
            if len(variant) and int(variant.max()) >= self.logits.shape[1]:
                raise SpecError(f"{self.path} has {self.logits.shape[1]} variants, {int(variant.max())} was asked for")
            return self.logits[index, variant].float()
        same = self.variant[index] == variant[:, None]
        if not bool(same.any(1).all()):
            missing = int((~same.any(1)).sum())
            raise SpecError(
                f"{self.path} has {same.shape[1]} variants of each example, {missing} of {len(index)} in a batch are "
                "not among them; train on cache.limit(feed)"
            )
        return self.logits[index, same.int().argmax(1)].float()

    def limit(self, feed: ArrayFeed) -> ArrayFeed:
        """Return the feed drawing from the variants that are in the cache alone."""
        return feed if self.variant is None else replace(feed, allowed=self.variant)


def build_cache(
    teacher: KnownTeacher,
    feed: ArrayFeed,
    path: Path,
    *,
    variants: int | None = None,
    seed: int = 0,
) -> TeacherCache:
    """Ask the teacher for every variant of every example, and keep what it says; open the cache where that is done.

    Of several ranks one builds and the others wait. Stopped at any progress, the next call goes on; batches of
    1024 rows whatever the feed's own.

    Args:
        teacher: whose main output is kept.
        feed: the training examples.
        path: the cache's file, ``.safetensors``.
        variants: how many of each example's variants are kept, drawn without repetition; None for all.
        seed: of that draw.

    Raises:
        SpecError: the feed's variants are endless, or it does not say which examples a batch has; there are fewer
            variants; the cache there was made of something else.
        ModelError: an output does not fit into half precision.
        AttarError: the cache cannot be written, or the one there is damaged.
    """
    if not isinstance(feed, ArrayFeed):
        raise SpecError(
            "batches of a loader do not say which examples they have, so nothing that is kept can be found again; give "
            "the data as arrays, or use the teacher without a cache"
        )
    if feed.variants is None:
        raise SpecError(_ENDLESS)
    if variants is not None and not 1 <= variants <= feed.variants:
        raise SpecError(f"variants={variants} of {feed.variants} were asked for; use 1 to {feed.variants}, or None")
    if variants == feed.variants:
        variants = None
    facts = {**cache_fingerprints(teacher, feed), "variants": variants, "seed": None if variants is None else seed}
    if path.exists():
        there = open_cache(path)
        other = sorted(key for key in facts if there.facts.get(key) != facts[key])
        if not other:
            return there
        raise SpecError(f"{path} was made with other {', '.join(other)}; remove it, or name another file")
    chosen = None if variants is None else _draw(feed.examples, feed.variants, variants, seed)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _fill(teacher, feed, path, chosen, facts)
    except OSError as error:
        raise AttarError(f"cache {path} cannot be written ({error}); make room, and run again to go on") from error
    return open_cache(path)


def cache_fingerprints(teacher: KnownTeacher, feed: ArrayFeed) -> dict[str, str]:
    """Return hashes of the teacher, of the examples as they are stored, and of how these become inputs."""
    # Preparation and augmentation are code. What they make of some examples tells them apart.
    index = torch.linspace(0, feed.examples - 1, 64, dtype=torch.float64).long()
    variant = torch.linspace(0, (feed.variants or 1) - 1, 64, dtype=torch.float64).long()
    augment = json.dumps([each.model_dump(mode="json") for each in feed.augment])
    form = digest([augment, *feed.at(index, variant).inputs])
    return {"teacher": teacher.fingerprint, "data": digest(feed.inputs), "inputs": form}


def open_cache(path: Path) -> TeacherCache:
    """Return the cache in a file.

    Raises:
        AttarError: it is damaged, or not a cache.
    """
    try:
        with safe_open(path, framework="pt") as file:
            said = file.metadata()[_KEY]
            logits = file.get_tensor("logits")
            variant = file.get_tensor("variant").long() if "variant" in file.keys() else None  # noqa: SIM118
        if zlib.crc32(array_bytes(logits)) != int(said[:8], 16):
            raise ValueError("its bytes are not those that were written")
        return TeacherCache(path, logits, variant, json.loads(said[8:]))
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise AttarError(
            f"cache {path} is damaged ({type(error).__name__}: {error}); remove it to make it again"
        ) from error


_ENDLESS = (
    "the augmentation draws anew each time, and what a teacher says of it cannot be kept; use crop and flip alone, or "
    "the teacher without a cache"
)


def _draw(examples: int, variants: int, count: int, seed: int) -> Tensor:
    """Return ``count`` different variants for each example, int32, ascending."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "bank"))
    weights = torch.rand(examples, variants, generator=generator)
    return weights.topk(count, dim=1).indices.int().sort(1).values


def _fill(
    teacher: KnownTeacher, feed: ArrayFeed, path: Path, chosen: Tensor | None, facts: Mapping[str, str | int | None]
) -> None:
    """Write the file, from where it was left off."""
    slots = chosen.shape[1] if chosen is not None else feed.variants or 1
    probe = teacher.outputs(feed.at(torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)))
    sizes = tuple(probe.shape[1:])
    rows, width = feed.examples * slots, 2 * math.prod(sizes)
    first = b"" if chosen is None else chosen.numpy().tobytes()

    def head(checksum: str) -> bytes:
        logits = _entry("F16", (feed.examples, slots, *sizes), len(first), rows * width)
        variant = {} if chosen is None else {"variant": _entry("I32", tuple(chosen.shape), 0, len(first))}
        facts_text = checksum + json.dumps(facts, separators=(",", ":"), sort_keys=True)
        text = json.dumps({"__metadata__": {_KEY: facts_text}, **variant, "logits": logits}, separators=(",", ":"))
        text += " " * (-len(text) % 8)
        return len(text).to_bytes(8, "little") + text.encode()

    start = head(_BLANK) + first
    growing = path.with_name(f".{path.name}.part")
    with open(growing, "r+b" if growing.exists() else "w+b") as file:
        done = _left_off(file, start, width, rows)
        _rows(teacher, feed, chosen, file, done, rows)
        file.seek(len(start))
        checksum = 0
        while block := file.read(1 << 24):
            checksum = zlib.crc32(block, checksum)
        file.seek(0)
        file.write(head(f"{checksum:08x}"))
        file.flush()
        os.fsync(file.fileno())
    os.replace(growing, path)


def _left_off(file: BinaryIO, start: bytes, width: int, rows: int) -> int:
    """Return how many rows of a file that was begun are sure, whole batches, and cut it there; begin any other."""
    found, place = file.read(len(start)), start.index(_PLACE) + len(_PLACE)
    # The checksum is there already where only the file's name was still to be changed.
    if found[:place] + _BLANK.encode() + found[place + len(_BLANK) :] != start:
        file.seek(0)
        file.truncate()
        file.write(start)
        return 0
    written = (file.seek(0, os.SEEK_END) - len(start)) // width
    # The last batch may have been under way when the machine went down.
    done = max(0, min(written, rows) // _ROWS - 1) * _ROWS
    file.seek(len(start) + done * width)
    file.truncate()
    return done


def _rows(teacher: KnownTeacher, feed: ArrayFeed, chosen: Tensor | None, file: BinaryIO, done: int, rows: int) -> None:
    """Append the rows from ``done`` on, a batch at a time."""
    slots = rows // feed.examples
    for begin in track(range(done, rows, _ROWS), "asking the teacher"):
        flat = torch.arange(begin, min(begin + _ROWS, rows))
        index, slot = flat // slots, flat % slots
        made = teacher.outputs(feed.at(index, slot if chosen is None else chosen[index, slot].long())).cpu().half()
        if not bool(torch.isfinite(made).all()):
            raise ModelError(
                "an output of the teacher is not finite in half precision; use the teacher without a cache"
            )
        file.write(made.contiguous().numpy().tobytes())
        file.flush()
        os.fsync(file.fileno())


def _entry(kind: str, shape: tuple[int, ...], begin: int, length: int) -> dict[str, object]:
    return {"dtype": kind, "shape": list(shape), "data_offsets": [begin, begin + length]}
