"""What was asked of a file, kept with the model whose bits were chosen for it, so that later steps hold it too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from attar._src.artifact.packing import AUTO
from attar._src.artifact.writer import pack
from attar._src.methods.quantize.short_numbers import shorten_numbers
from attar._src.work.compressed_model import CompressedModel, FileInfo


@dataclass(frozen=True)
class HeldTarget:
    """Bytes and loss of a file that must hold.

    Attributes:
        most: bytes of the file.
        use: what the file tells its user.
        coder: that the bytes were counted with.
        loss: packed file -> how it misses a target of another kind, in words; empty if it holds.
    """

    most: int
    use: FileInfo
    coder: str = AUTO
    loss: Callable[[bytes], str] = lambda _: ""

    def excess(self, model: CompressedModel) -> int:
        """Return the bytes of the model's file above the target; 0 or less if it holds."""
        return len(self._packed(model)) - self.most

    def missed(self, packed: bytes, coder: str) -> str:
        """Return what a file, packed with ``coder``, misses, with a fix; empty if it holds."""
        if len(packed) <= self.most:
            return ""
        said = f"the file has {len(packed):,} bytes, and {self.most:,} were asked for"
        if coder != self.coder:
            return (
                f"{said}, which hold with the coder {self.coder!r}: save with it, or choose the bits for another "
                "coder (coder=)"
            )
        return (
            f"{said}, which held until a later stage changed the model: put that stage before the one with the target"
        )

    def holds(self, model: CompressedModel) -> bool:
        """Return whether the model's file holds the target in bytes and loss."""
        packed = self._packed(model)
        return len(packed) <= self.most and not self.loss(packed)

    def _packed(self, model: CompressedModel) -> bytes:
        return pack(shorten_numbers(model).contents(self.use), coder=self.coder)
