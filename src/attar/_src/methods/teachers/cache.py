"""Teacher cache: the outputs of a teacher for every variant of every training example, computed once and kept on disk.

The safetensors file has ``logits`` in half precision, ``(examples, variants, ...)``, and the index of each ``variant``.
A crop with 4 pixels of padding and a flip have 162 variants: 50,000 x 162 x 10 x 2 bytes = 162 MB for CIFAR-10. With a
random subset of variants the feed draws from these alone, because teacher and student should see the same crop (Beyer
et al. 2022, "Knowledge distillation: a good teacher is patient and consistent", section 3.1).

An unfinished file has another name and grows in batches, so that interrupted work continues with the same bytes.
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

from attar._src.artifact.files import no_link
from attar._src.core.digest import array_bytes, digest
from attar._src.core.errors import AttarError, ModelError, SpecError
from attar._src.core.progress import track
from attar._src.train.feed import ArrayFeed
from attar._src.train.seeds import derive_seed
from attar._src.work.context import Teacher

_KEY = "attar-bank-1"
_ROWS = 1024  # rows in a batch
_BLANK = "0" * 8  # placeholder of the checksum until it is known
_PLACE = f'"{_KEY}":"'.encode()  # text before the checksum


class KnownTeacher(Teacher, Protocol):
    """A teacher with a hash of its weights, program and precision, which its cache is checked against."""

    @property
    def fingerprint(self) -> str:
        """The hash."""
        ...


@dataclass(frozen=True, eq=False)
class TeacherCache:
    """A finished cache.

    Attributes:
        logits: float16 ``(examples, k, ...)``, memory-mapped.
        variant: int64 ``(examples, k)``, the indices of the cached variants; None if all are cached in order.
        facts: hashes of the teacher, the data and the prepared inputs, and how variants were chosen.
    """

    path: Path
    logits: Tensor
    variant: Tensor | None
    facts: Mapping[str, str | int | None]

    def look_up(self, index: Tensor, variant: Tensor | None) -> Tensor:
        """Return the outputs, float32 ``(n, ...)``, for indices of examples and of their variants, int64 ``(n,)``.

        Raises:
            SpecError: an example or variant is not in the cache.
        """
        if variant is None:
            raise SpecError(_ENDLESS)
        index, variant = index.cpu(), variant.cpu()
        if len(index) and int(index.max()) >= len(self.logits):
            raise SpecError(f"{self.path} has {len(self.logits)} examples (got index {int(index.max())})")
        if self.variant is None:
            if len(variant) and int(variant.max()) >= self.logits.shape[1]:
                raise SpecError(f"{self.path} has {self.logits.shape[1]} variants (got index {int(variant.max())})")
            return self.logits[index, variant].float()
        same = self.variant[index] == variant[:, None]
        if not bool(same.any(1).all()):
            missing = int((~same.any(1)).sum())
            raise SpecError(
                f"{self.path} has {same.shape[1]} variants of each example, but not {missing} of the {len(index)} in a "
                "batch; train on cache.limit(feed)"
            )
        return self.logits[index, same.int().argmax(1)].float()

    def limit(self, feed: ArrayFeed) -> ArrayFeed:
        """Return the feed restricted to cached variants."""
        return feed if self.variant is None else replace(feed, allowed=self.variant)


def build_cache(
    teacher: KnownTeacher, feed: ArrayFeed, path: Path, *, variants: int | None = None, seed: int = 0
) -> TeacherCache:
    """Compute and store the teacher's outputs for every variant of every example, or open a finished cache.

    One rank should build while the others wait. After an interruption the next call continues.

    Args:
        teacher: its main output is stored.
        feed: the training examples.
        path: the cache's file, ``.safetensors``.
        variants: number of variants to store of each example, drawn without repetition; None for all.
        seed: seed of that draw.

    Raises:
        SpecError: the feed has infinitely many variants, or fewer than ``variants``, or does not number its examples;
            the existing cache is of another teacher, data, augmentation or draw.
        ModelError: an output is not finite in half precision.
        AttarError: the cache cannot be written, or the existing one is damaged.
    """
    if not isinstance(feed, ArrayFeed):
        raise SpecError(
            "a loader does not number its examples, so cached outputs cannot be looked up; give arrays, or use the "
            "teacher without a cache"
        )
    if feed.variants is None:
        raise SpecError(_ENDLESS)
    if variants is not None and not 1 <= variants <= feed.variants:
        raise SpecError(f"variants={variants}, but the augmentation has {feed.variants}; use 1 to {feed.variants}")
    if variants == feed.variants:
        variants = None
    facts = {**cache_fingerprints(teacher, feed), "variants": variants, "seed": None if variants is None else seed}
    if path.exists():
        existing = open_cache(path)
        changed = sorted(key for key in facts if existing.facts.get(key) != facts[key])
        if not changed:
            return existing
        raise SpecError(f"{path} was made with other {', '.join(changed)}; remove it, or name another file")
    chosen = None if variants is None else _draw(feed.examples, feed.variants, variants, seed)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _fill(teacher, feed, path, chosen, facts)
    except OSError as error:
        raise AttarError(f"cache {path} cannot be written ({error}); free space, and run again to continue") from error
    return open_cache(path)


def cache_fingerprints(teacher: KnownTeacher, feed: ArrayFeed) -> dict[str, str]:
    """Return hashes of the teacher, of the raw examples, and of 64 prepared and augmented ones."""
    index = torch.linspace(0, feed.examples - 1, 64, dtype=torch.float64).long()
    variant = torch.linspace(0, (feed.variants or 1) - 1, 64, dtype=torch.float64).long()
    augment = json.dumps([each.model_dump(mode="json") for each in feed.augment])
    form = digest([augment, *feed.at(index, variant).inputs])
    return {"teacher": teacher.fingerprint, "data": digest(feed.inputs), "inputs": form}


def open_cache(path: Path) -> TeacherCache:
    """Return the cache in a file.

    Raises:
        AttarError: the file is damaged or no cache.
    """
    try:
        with safe_open(path, framework="pt") as file:
            facts = file.metadata()[_KEY]
            logits = file.get_tensor("logits")
            variant = file.get_tensor("variant").long() if "variant" in file.keys() else None  # noqa: SIM118
        if zlib.crc32(array_bytes(logits)) != int(facts[:8], 16):
            raise ValueError("the checksum does not match")
        return TeacherCache(path, logits, variant, json.loads(facts[8:]))
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        found = f"{type(error).__name__}: {error}"
        raise AttarError(f"cache {path} is damaged ({found}); remove it to build it again") from error


_ENDLESS = (
    "the augmentation has infinitely many variants, which a cache cannot hold; use crop and flip only, or the teacher "
    "without a cache"
)


def _draw(examples: int, variants: int, count: int, seed: int) -> Tensor:
    """Return ``count`` different variants of each example, int32 ``(examples, count)``, ascending."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "bank"))
    weights = torch.rand(examples, variants, generator=generator)
    return weights.topk(count, dim=1).indices.int().sort(1).values


def _fill(
    teacher: KnownTeacher, feed: ArrayFeed, path: Path, chosen: Tensor | None, facts: Mapping[str, str | int | None]
) -> None:
    """Write the file, continuing an unfinished one."""
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
    with open(growing, "r+b" if growing.exists() else "w+b", opener=no_link) as file:
        done = _finished_rows(file, start, width, rows)
        _append_rows(teacher, feed, chosen, file, done, rows)
        file.seek(len(start))
        checksum = 0
        while block := file.read(1 << 24):
            checksum = zlib.crc32(block, checksum)
        file.seek(0)
        file.write(head(f"{checksum:08x}"))
        file.flush()
        os.fsync(file.fileno())
    os.replace(growing, path)


def _finished_rows(file: BinaryIO, start: bytes, width: int, rows: int) -> int:
    """Truncate an unfinished file to complete batches and return their rows; start a new file otherwise."""
    head, place = file.read(len(start)), start.index(_PLACE) + len(_PLACE)
    # The checksum is already set if only renaming was left to do.
    if head[:place] + _BLANK.encode() + head[place + len(_BLANK) :] != start:
        file.seek(0)
        file.truncate()
        file.write(start)
        return 0
    written = (file.seek(0, os.SEEK_END) - len(start)) // width
    # The last batch may be incomplete after a power failure.
    done = max(0, min(written, rows) // _ROWS - 1) * _ROWS
    file.seek(len(start) + done * width)
    file.truncate()
    return done


def _append_rows(
    teacher: KnownTeacher, feed: ArrayFeed, chosen: Tensor | None, file: BinaryIO, done: int, rows: int
) -> None:
    """Append the rows from ``done`` on in batches."""
    slots = rows // feed.examples
    for begin in track(range(done, rows, _ROWS), "asking the teacher"):
        flat = torch.arange(begin, min(begin + _ROWS, rows))
        index, slot = flat // slots, flat % slots
        outputs = teacher.outputs(feed.at(index, slot if chosen is None else chosen[index, slot].long())).cpu().half()
        if not bool(torch.isfinite(outputs).all()):
            raise ModelError("the teacher has outputs that are not finite in half precision; use it without a cache")
        file.write(outputs.contiguous().numpy().tobytes())
        file.flush()
        os.fsync(file.fileno())


def _entry(kind: str, shape: tuple[int, ...], begin: int, length: int) -> dict[str, object]:
    return {"dtype": kind, "shape": list(shape), "data_offsets": [begin, begin + length]}
