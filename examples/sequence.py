"""Small classifiers of token sequences: LSTM, GRU and transformer encoder.

All take int64 tokens ``(batch, length)`` and return logits ``(batch, classes)``; ``examples/tokens.py:order`` is a task
for them.

    attar quantize examples/sequence.py:lstm --weights lstm.safetensors --data examples/tokens.py:order -o lstm.attar
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LstmClassifier(nn.Module):
    """Embedding, stacked LSTM, linear layer on the state after the last token."""

    def __init__(self, vocab: int, embed: int, hidden: int, layers: int = 2, classes: int = 2) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab, embed)
        self.lstm = nn.LSTM(embed, hidden, layers, batch_first=True)
        self.head = nn.Linear(hidden, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the logits of ``tokens``."""
        states, _ = self.lstm(self.embedding(tokens))
        return self.head(states[:, -1])  # type: ignore[no-any-return]


class GruClassifier(nn.Module):
    """Embedding, stacked GRU, linear layer on the state after the last token."""

    def __init__(self, vocab: int, embed: int, hidden: int, layers: int = 2, classes: int = 2) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab, embed)
        self.gru = nn.GRU(embed, hidden, layers, batch_first=True)
        self.head = nn.Linear(hidden, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the logits of ``tokens``."""
        states, _ = self.gru(self.embedding(tokens))
        return self.head(states[:, -1])  # type: ignore[no-any-return]


class EncoderClassifier(nn.Module):
    """Embedding and learned positions, transformer encoder, linear layer on the mean over the tokens."""

    def __init__(
        self, vocab: int, width: int, heads: int, layers: int = 2, classes: int = 2, max_length: int = 64
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab, width)
        self.positions = nn.Parameter(torch.randn(max_length, width))
        layer = nn.TransformerEncoderLayer(width, heads, 2 * width, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the logits of ``tokens``, at most ``max_length`` long."""
        x = self.embedding(tokens) + self.positions[: tokens.shape[1]]
        return self.head(self.encoder(x).mean(1))  # type: ignore[no-any-return]


def lstm(vocab: int = 16, embed: int = 16, hidden: int = 32, layers: int = 2, classes: int = 2) -> LstmClassifier:
    """Return an untrained LSTM classifier; the defaults fit ``examples/tokens.py:order``."""
    return LstmClassifier(vocab, embed, hidden, layers, classes)


def gru(vocab: int = 16, embed: int = 16, hidden: int = 32, layers: int = 2, classes: int = 2) -> GruClassifier:
    """Return an untrained GRU classifier; the defaults fit ``examples/tokens.py:order``."""
    return GruClassifier(vocab, embed, hidden, layers, classes)


def encoder(
    vocab: int = 16, width: int = 32, heads: int = 4, layers: int = 2, classes: int = 2, max_length: int = 64
) -> EncoderClassifier:
    """Return an untrained transformer encoder; the defaults fit ``examples/tokens.py:order``."""
    return EncoderClassifier(vocab, width, heads, layers, classes, max_length)
