"""What a backend is."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Protocol

from attar._src.artifact.manifest import Manifest
from attar._src.artifact.reader import Artifact


class Backend(Protocol):
    """Writes an open file in the form of another runtime.

    Attributes:
        name: what it is asked for as.
        suffix: what its files end in.
        needs: the packages it imports beyond the base install.
    """

    name: ClassVar[str]
    suffix: ClassVar[str]
    needs: ClassVar[tuple[str, ...]]

    def supports(self, manifest: Manifest) -> str | None:
        """Return why a file cannot be exported, or None where it can."""
        ...

    def export(self, artifact: Artifact, path: Path, module: Any = None) -> None:
        """Write the file at ``path``, whole or not at all.

        Args:
            artifact: the open file.
            path: where to write.
            module: the PyTorch module it was made from, for backends that trace it anew.

        Raises:
            AttarError: the file cannot be exported; the message says why.
        """
        ...
