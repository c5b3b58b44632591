import pytest
import torch

from attar._src.core.errors import ModelError
from attar._src.model.export import fourier

REAL = torch.randn(3, 6, 20, generator=torch.Generator().manual_seed(0))
COMPLEX = torch.complex(REAL, REAL.flip(2))
NORMS = [None, "backward", "ortho", "forward"]


def assert_same(found, wanted):
    assert found.dtype == wanted.dtype
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("n", "dim"), [(None, -1), (13, -1), (32, 2), (6, 1)])
def test_one_axis(norm, n, dim):
    assert_same(fourier.fft(REAL, n, dim, norm), torch.fft.fft(REAL, n, dim, norm))
    assert_same(fourier.fft(COMPLEX, n, dim, norm), torch.fft.fft(COMPLEX, n, dim, norm))
    assert_same(fourier.ifft(COMPLEX, n, dim, norm), torch.fft.ifft(COMPLEX, n, dim, norm))
    assert_same(fourier.rfft(REAL, n, dim, norm), torch.fft.rfft(REAL, n, dim, norm))
    # A spectrum of real values: those of its first and middle bins are real.
    spectrum = torch.fft.rfft(REAL, n, dim)
    size = REAL.shape[dim] if n is None else n
    assert_same(fourier.irfft(spectrum, size, dim, norm), torch.fft.irfft(spectrum, size, dim, norm))
    assert_same(fourier.hfft(spectrum, size, dim, norm), torch.fft.hfft(spectrum, size, dim, norm))
    assert_same(fourier.hfft(REAL, size, dim, norm), torch.fft.hfft(REAL, size, dim, norm))
    assert_same(fourier.ihfft(REAL, n, dim, norm), torch.fft.ihfft(REAL, n, dim, norm).resolve_conj())


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("s", "dim"), [(None, (1, 2)), ((4, 10), (1, 2)), (None, (2, 0)), (None, None), ((8,), None)])
def test_several_axes(norm, s, dim):
    assert_same(fourier.fftn(COMPLEX, s, dim, norm), torch.fft.fftn(COMPLEX, s, dim, norm))
    assert_same(fourier.ifftn(COMPLEX, s, dim, norm), torch.fft.ifftn(COMPLEX, s, dim, norm))
    assert_same(fourier.rfftn(REAL, s, dim, norm), torch.fft.rfftn(REAL, s, dim, norm))
    spectrum = torch.fft.rfftn(REAL, s, dim)
    assert_same(fourier.irfftn(spectrum, s, dim, norm), torch.fft.irfftn(spectrum, s, dim, norm))


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize(("hop", "length", "center"), [(None, None, True), (5, 20, True), (16, 32, False)])
def test_short_time_transforms_and_back(normalized, hop, length, center):
    x = torch.randn(2, 200, generator=torch.Generator().manual_seed(0))
    window = torch.ones(32) if length is None else torch.hamming_window(length)
    for signal in (x, x[0]):
        given = {"window": window, "normalized": normalized, "return_complex": True}
        wanted = torch.stft(signal, 32, hop, length, center=False, **given)
        assert_same(fourier.stft(signal, 32, hop, length, window, normalized, None, True), wanted)
        pairs = fourier.stft(signal, 32, hop, length, window, normalized, False, False)
        two_sided = torch.stft(signal, 32, hop, length, center=False, onesided=False, **given)
        assert_same(pairs, torch.view_as_real(two_sided))
        spectrum = torch.stft(signal, 32, hop, length, center=center, **given)
        for samples in (None, 150):
            back = torch.istft(spectrum, 32, hop, length, window, center, normalized, length=samples)
            assert_same(fourier.istft(spectrum, 32, hop, length, window, center, normalized, None, samples), back)


@pytest.mark.filterwarnings("ignore:The length of signal is shorter")
def test_a_longer_signal_than_its_frames_ends_in_zeros():
    x = torch.randn(2, 200, generator=torch.Generator().manual_seed(0))
    spectrum = torch.stft(x, 32, window=torch.ones(32), return_complex=True)
    back = torch.istft(spectrum, 32, window=torch.ones(32), length=260)
    assert_same(fourier.istft(spectrum, 32, None, None, torch.ones(32), length=260), back)
    assert not back[:, -20:].any()


def test_long_transforms_are_refused():
    with pytest.raises(ModelError, match="transform of 5000 points; at most 2048"):
        fourier.rfft(torch.zeros(5000))
