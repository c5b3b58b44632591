"""The entropy coders there are, under their names."""

from __future__ import annotations

from attar.coding.base import Coder
from attar.coding.huffman import Huffman
from attar.coding.rans import Rans
from attar.coding.raw import Raw
from attar.core.registry import Registry

CODERS: Registry[Coder] = Registry("coder", Rans(), Huffman(), Raw())
