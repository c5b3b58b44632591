"""What a goal judges: bytes, loss and time of a file, measured or predicted, and whether it is of use."""

from __future__ import annotations

from typing import Protocol


class Figures(Protocol):
    """Bytes, points lost, and milliseconds of one example; ``ms`` is None where no time was measured.

    ``ruined`` is whether most of what the module knows is lost, ``others`` the most that an output beside the main one
    lost, as a share of its predictions or variance; None without such outputs.
    """

    @property
    def file_bytes(self) -> int: ...
    @property
    def drop(self) -> float: ...
    @property
    def ms(self) -> float | None: ...
    @property
    def ruined(self) -> bool: ...
    @property
    def others(self) -> float | None: ...
