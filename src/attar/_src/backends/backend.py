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
        """Write the file at ``path``, completely or not at all.

        Raises:
            AttarError: the file cannot be exported; the message says why.
        """
        ...

    def open(self, path: Path, *, threads: int | None = None) -> Runner:
        """Open a file that :meth:`export` wrote.

        Args:
            path: the exported file.
            threads: threads a run may use; the runtime's choice if None.

        Returns:
            a runner with the names of the file's inputs and outputs; outputs equal those of the ``.attar`` file's
            :class:`Session` up to rounding.

        Raises:
            AttarError: the file cannot be read, or the runtime refuses it.
        """
        ...
