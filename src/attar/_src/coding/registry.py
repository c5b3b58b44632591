"""Registry of the entropy coders."""

from __future__ import annotations

from attar._src.coding.base import Coder
from attar._src.coding.contexts.coder import ContextCoder
from attar._src.coding.huffman import Huffman
from attar._src.coding.rans import Rans
from attar._src.coding.raw import Raw
from attar._src.core.registry import Registry

CODERS: Registry[Coder] = Registry("coder", Rans(), ContextCoder(), Huffman(), Raw())
