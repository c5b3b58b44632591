"""Fourier transforms as matrix products and convolutions, which ONNX Runtime's common kernels compute.

A transform of N points is X_k = sum_n x_n exp(-2 pi i k n / N): the products of x with a matrix of cosines and one of
sines. Complex values are pairs of real ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from attar._src.core.errors import ModelError

#: The largest transform: its two matrices, which are computed as a file is opened, have 16 MiB each.
_MOST_POINTS = 2048
#: Norm of a transform -> that of the opposite one with the same factor.
_OTHER_WAY = {None: "forward", "backward": "forward", "forward": "backward", "ortho": "ortho"}


def fft(x: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None, *, sign: int = -1) -> Tensor:
    """Return ``torch.fft.fft``; with ``sign=1``, ``torch.fft.ifft``."""
    return _transform(x, n, dim, norm, sign, onesided=False)


def ifft(x: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
    """Return ``torch.fft.ifft``."""
    return fft(x, n, dim, norm, sign=1)


def rfft(x: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
    """Return ``torch.fft.rfft``."""
    return _transform(x, n, dim, norm, -1, onesided=True)


def irfft(z: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
    """Return ``torch.fft.irfft``."""
    n = 2 * (z.shape[dim] - 1) if n is None else n
    real, *imaginary = (_of_length(part.movedim(dim, -1), n // 2 + 1) for part in _parts(z))
    cosines, sines = _inverse_matrices(n)
    found = real @ cosines
    if imaginary:
        found = found - imaginary[0] @ sines
    return (found * _factor(n, norm, 1)).movedim(-1, dim)


def conj(z: Tensor) -> Tensor:
    """Return ``torch.conj`` as a value: the lazy minus of PyTorch's view has no form in ONNX."""
    return torch.complex(z.real, -z.imag)


def hfft(z: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
    """Return ``torch.fft.hfft``: the real values whose spectrum is Hermitian, ``irfft`` of the conjugate, scaled."""
    return irfft(conj(z) if z.is_complex() else z, n, dim, _OTHER_WAY[norm])


def ihfft(x: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
    """Return ``torch.fft.ihfft``."""
    return conj(rfft(x, n, dim, _OTHER_WAY[norm]))


def fftn(
    x: Tensor,
    s: Sequence[int] | None = None,
    dim: Sequence[int] | None = None,
    norm: str | None = None,
    *,
    sign: int = -1,
) -> Tensor:
    """Return ``torch.fft.fftn``; with ``sign=1``, ``torch.fft.ifftn``."""
    for size, axis in _axes(x, s, dim):
        x = fft(x, size, axis, norm, sign=sign)
    return x


def ifftn(
    x: Tensor, s: Sequence[int] | None = None, dim: Sequence[int] | None = None, norm: str | None = None
) -> Tensor:
    """Return ``torch.fft.ifftn``."""
    return fftn(x, s, dim, norm, sign=1)


def rfftn(
    x: Tensor, s: Sequence[int] | None = None, dim: Sequence[int] | None = None, norm: str | None = None
) -> Tensor:
    """Return ``torch.fft.rfftn``."""
    *others, (size, axis) = _axes(x, s, dim)
    x = rfft(x, size, axis, norm)
    for each, axis in others:
        x = fft(x, each, axis, norm)
    return x


def irfftn(
    x: Tensor, s: Sequence[int] | None = None, dim: Sequence[int] | None = None, norm: str | None = None
) -> Tensor:
    """Return ``torch.fft.irfftn``."""
    *others, (size, last) = _axes(x, s, dim)
    for each, axis in others:
        x = ifft(x, each, axis, norm)
    return irfft(x, size, last, norm)


def stft(
    x: Tensor,
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: Tensor | None = None,
    normalized: bool = False,
    onesided: bool | None = None,
    return_complex: bool | None = None,
    *_: Any,
) -> Tensor:
    """Return ``aten::stft``, without centring: a convolution of ``(L,)`` or ``(batch, L)`` with windowed waves."""
    bins = n_fft // 2 + 1 if onesided is not False else n_fft
    angles = _angles(torch.arange(bins).reshape(-1, 1, 1) * torch.arange(n_fft), n_fft)
    waves = torch.cat([angles.cos(), -angles.sin()]) * _window(x, n_fft, win_length, window)
    waves = waves * (n_fft**-0.5 if normalized else 1.0)
    hop = n_fft // 4 if hop_length is None else hop_length
    found = functional.conv1d(x.reshape(-1, 1, x.shape[-1]), waves, stride=hop)
    found = found if x.dim() == 2 else found.squeeze(0)
    real, imaginary = found[..., :bins, :], found[..., bins:, :]
    return torch.complex(real, imaginary) if return_complex else torch.stack([real, imaginary], -1)


def istft(
    z: Tensor,
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: Tensor | None = None,
    center: bool = True,
    normalized: bool = False,
    onesided: bool | None = None,
    length: int | None = None,
    return_complex: bool = False,
) -> Tensor:
    """Return ``aten::istft`` of one-sided spectra ``(bins, T)`` or ``(batch, bins, T)``: a transposed convolution."""
    if return_complex or onesided is False:
        raise ModelError("istft of two-sided spectra has no form in a file; use onesided=True")
    parts = torch.cat(_parts(z if z.dim() == 3 else z.unsqueeze(0)), 1)
    shape = _window(parts, n_fft, win_length, window)
    cosines, sines = _inverse_matrices(n_fft)
    waves = torch.cat([cosines, -sines]) * shape * (n_fft**-0.5 if normalized else 1.0 / n_fft)
    hop = n_fft // 4 if hop_length is None else hop_length
    sound = functional.conv_transpose1d(parts, waves.unsqueeze(1), stride=hop)
    ones = torch.ones_like(parts[:1, :1])
    sound = sound / functional.conv_transpose1d(ones, (shape * shape).reshape(1, 1, -1), stride=hop)
    begin = n_fft // 2 if center else 0
    sound = sound[:, 0, begin:]
    sound = _of_length(sound, sound.shape[-1] - begin if length is None else length)
    return sound if z.dim() == 3 else sound.squeeze(0)


def _transform(x: Tensor, n: int | None, dim: int, norm: str | None, sign: int, *, onesided: bool) -> Tensor:
    n = x.shape[dim] if n is None else n
    cosines, sines = _matrices(n, n // 2 + 1 if onesided else n)
    parts = [_of_length(part.movedim(dim, -1), n) for part in _parts(x)]
    real, imaginary = parts[0] @ cosines, sign * (parts[0] @ sines)
    if len(parts) == 2:
        real = real - sign * (parts[1] @ sines)
        imaginary = imaginary + parts[1] @ cosines
    factor = _factor(n, norm, sign)
    return torch.complex(real * factor, imaginary * factor).movedim(-1, dim)


def _matrices(n: int, bins: int) -> tuple[Tensor, Tensor]:
    """Return cosine and sine of 2 pi k n / N, ``(N, bins)``."""
    angles = _angles(torch.arange(n).unsqueeze(1) * torch.arange(bins), n)
    return angles.cos(), angles.sin()


def _angles(products: Tensor, n: int) -> Tensor:
    """Return 2 pi k n / N of the products k n, which are taken modulo N, so that they stay exact."""
    if n > _MOST_POINTS:
        raise ModelError(f"a Fourier transform of {n} points; at most {_MOST_POINTS} are deployed, as matrix products")
    return (products % n).to(torch.float32) * (2 * math.pi / n)


def _inverse_matrices(n: int) -> tuple[Tensor, Tensor]:
    """Return the matrices ``(bins, N)`` that make real values of one-sided spectra; inner bins stand for two."""
    bins = n // 2 + 1
    index = torch.arange(bins)
    weights = torch.where((index == 0) | (2 * index == n), 1.0, 2.0).unsqueeze(1)
    cosines, sines = _matrices(n, bins)
    return cosines.t() * weights, sines.t() * weights


def _window(x: Tensor, n_fft: int, win_length: int | None, window: Tensor | None) -> Tensor:
    """Return the window of ``n_fft`` points, a shorter one in the middle of zeros."""
    size = n_fft if win_length is None else win_length
    shape = torch.ones(size, dtype=x.dtype) if window is None else window
    left = (n_fft - size) // 2
    return functional.pad(shape, (left, n_fft - size - left)) if size < n_fft else shape


def _parts(x: Tensor) -> list[Tensor]:
    return [x.real, x.imag] if x.is_complex() else [x]


def _of_length(x: Tensor, n: int) -> Tensor:
    """Return the first ``n`` values along the last axis, zeros after the end."""
    return x[..., :n] if n <= x.shape[-1] else functional.pad(x, (0, n - x.shape[-1]))


def _axes(x: Tensor, s: Sequence[int] | None, dim: Sequence[int] | None) -> list[tuple[int | None, int]]:
    if dim is None:
        dim = range(-(x.dim() if s is None else len(s)), 0)
    return list(zip([None] * len(dim) if s is None else s, dim, strict=True))


def _factor(n: int, norm: str | None, sign: int) -> float:
    if norm == "ortho":
        return float(n**-0.5)
    return 1.0 / n if (norm == "forward") == (sign < 0) else 1.0
