import subprocess
import sys

import numpy as np
import pytest
import torch

from attar._src.core.digest import array_bytes, digest


def test_texts_do_not_run_into_each_other():
    assert digest(["ab", "c"]) != digest(["a", "bc"]) != digest(["abc"])
    assert digest(["a"]) == digest(iter(["a"]))


@pytest.mark.parametrize("make", [np.asarray, lambda x: torch.tensor(np.asarray(x))])
def test_type_shape_order_and_every_byte_count(make):
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    others = [x.reshape(3, 2), x.astype(np.float64), x.view(np.int32), x[::-1].copy(), np.where(x == 5, 6, x)]
    assert len({digest([make(each)]) for each in [x, *others]}) == 6


def test_memory_layout_does_not_count():
    x = np.arange(6, dtype=np.int64).reshape(2, 3)
    assert digest([x.T]) == digest([x.T.copy()])
    assert digest([torch.tensor(x).T]) == digest([torch.tensor(x).T.contiguous()])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.bool, torch.int64, torch.complex64])
@pytest.mark.parametrize("shape", [(), (0,), (1,), (2, 3)])
def test_every_type_has_its_bytes(dtype, shape):
    tensor = torch.ones(shape, dtype=dtype, requires_grad=dtype.is_floating_point)
    assert len(array_bytes(tensor)) == tensor.numel() * tensor.element_size()
    assert digest([tensor]) == digest([tensor.detach().clone()])
    if tensor.numel():
        assert digest([tensor]) != digest([torch.zeros(shape, dtype=dtype)])


def test_nan_and_negative_zero_are_bytes_too():
    assert digest([np.array([np.nan])]) == digest([np.array([np.nan])])
    assert digest([np.array([0.0])]) != digest([np.array([-0.0])])


def test_arrays_are_hashed_without_pytorch():
    code = "import sys, numpy, attar._src.core.digest as d; d.digest([numpy.ones(3)]); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
