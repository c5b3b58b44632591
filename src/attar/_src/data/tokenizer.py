"""The tokenizer of a model of ``transformers``: texts -> ``input_ids``, ``attention_mask`` and what else it makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attar._src.core.errors import DataError, SpecError, short_message
from attar._src.data.huggingface import HF, read_config, transformers_offline
from attar._src.data.texts import Texts

#: Above this, the longest text of a tokenizer stands for "any".
_ANY = 1_000_000
#: Files with the words of a tokenizer.
_FILES = ("tokenizer.json", "vocab*", "*.model", "*.tiktoken", "*.vocab")


class Tokenizer:
    """The tokenizer in a folder, and the classes of the model beside it.

    Args:
        folder: of a model and its tokenizer, as ``save_pretrained`` writes them; with or without ``hf:``.
        max_length: tokens of the longest text, longer ones are cut; by default what the model takes.

    Attributes:
        classes: the word for a class -> its number, of ``label2id`` in ``config.json``.

    Raises:
        SpecError: the folder has no tokenizer, or ``transformers`` is not installed.
    """

    def __init__(self, folder: str, max_length: int | None = None) -> None:
        self.folder = Path(folder.removeprefix(HF)).expanduser()
        config = read_config(self.folder)
        made = _open(self.folder)
        if made.pad_token is None:
            # Decoders have none; the attention mask hides what is there.
            made.pad_token = made.eos_token or made.convert_ids_to_tokens(0)
        self._call: Any = made
        longest = min(made.model_max_length, config.get("max_position_embeddings") or _ANY)
        self.max_length = max_length or (longest if longest < _ANY else None)
        self.classes = {str(word): int(number) for word, number in (config.get("label2id") or {}).items()}

    @property
    def class_names(self) -> tuple[str, ...]:
        """The words for the classes, in their order; none if they are transformers' own, ``LABEL_0``."""
        names = sorted(self.classes, key=lambda word: self.classes[word])
        usual = [f"LABEL_{place}" for place in range(len(names))]
        return () if names == usual or [*self.classes.values()] != [*range(len(names))] else tuple(names)

    def batches(self, texts: Texts, batch: int, *, fixed: bool = False) -> list[dict[str, NDArray[Any]]]:
        """Return batches of inputs ``(batch, tokens)`` by name, int64, padded to the longest text of each.

        ``fixed`` pads all to ``max_length``.

        Raises:
            DataError: with ``fixed``, no length is known.
        """
        if fixed and self.max_length is None:
            raise DataError(f"{texts.name}: texts of one length need --max-length; the tokenizer has none")
        found = []
        for start in range(0, len(texts), batch):
            part = slice(start, start + batch)
            made = self._call(
                list(texts.texts[part]),
                list(texts.pairs[part]) or None,
                padding="max_length" if fixed else True,
                truncation=self.max_length is not None,
                max_length=self.max_length,
                return_tensors="np",
            )
            found.append({name: np.asarray(array, np.int64) for name, array in made.items()})
        return found


def _open(folder: Path) -> Any:
    way_out = "write one there with tokenizer.save_pretrained(folder), or name its folder with --tokenizer"
    with transformers_offline(f"the tokenizer of {folder}") as library:
        try:
            made = library.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except Exception as error:
            # Damaged files and tokenizers with code of their own raise nearly anything.
            raise SpecError(
                f"{folder} has no tokenizer that can be opened ({short_message(error)}); {way_out}"
            ) from error
    # Without any file transformers makes a tokenizer that knows no word; those of bytes have no files.
    if made.vocab_files_names and not any(path for pattern in _FILES for path in folder.glob(pattern)):
        raise SpecError(f"{folder} has no tokenizer (tokenizer.json, vocab.txt, ...); {way_out}")
    return made
