"""The interface of a backend."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Protocol

from attar._src.artifact.manifest import Manifest
from attar._src.artifact.reader import Artifact
from attar._src.measure.runner import Runner


class Backend(Protocol):
    """Writes a ``.attar`` file in the format of another runtime, and opens what it wrote with that runtime.

    Attributes:
        name: its name in ``attar export --to NAME``.
        suffix: suffix of its files, such as ``.onnx``.
        needs: packages it imports beyond the base install.
    """

    name: ClassVar[str]
    suffix: ClassVar[str]
    needs: ClassVar[tuple[str, ...]]

    def supports(self, manifest: Manifest) -> str | None:
        """Return why a file cannot be exported, or None."""
        ...

    def export(self, artifact: Artifact, path: Path) -> None:
        """Write the file at ``path``, completely or not at all; raise :class:`AttarError` if it cannot be exported."""
        ...

    def open(self, path: Path, *, threads: int | None = None) -> Runner:
        """Open a file that :meth:`export` wrote.

        Inputs and outputs have the names of the ``.attar`` file, whose outputs they equal up to rounding.

        Args:
            path: the exported file.
            threads: threads for a run; the runtime's choice if None.

        Raises:
            AttarError: the file cannot be read, or the runtime refuses it.
        """
        ...
