"""What is computed of users' tensors with NumPy."""

import warnings

import numpy as np
import pytest
import torch

from spikewatch.collectors import arrays


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("contiguous", [True, False])
@pytest.mark.parametrize(
    ("shape", "axis"), [((4, 3, 2, 5), 0), ((4, 3, 2, 5), 1), ((4, 3, 7), 2), ((6,), 0)]
)
def test_the_norm_at_each_index_of_an_axis_is_numpys(shape, axis, contiguous, dtype):
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=dtype)
    if not contiguous:
        x = torch.randn(shape[::-1], dtype=dtype).permute(*reversed(range(len(shape))))
    over = tuple(d for d in range(len(shape)) if d != axis)
    expected = np.sqrt((x.double().numpy() ** 2).sum(over))
    assert arrays.norms(x, axis).tolist() == pytest.approx(expected.tolist(), rel=1e-6)


@pytest.mark.parametrize("stride", [1, 2])
def test_the_sum_of_squares_is_exact_for_whole_numbers(stride):
    x = torch.randint(-3, 4, (70_000, stride)).float()[:, 0]
    assert arrays.squared(x) == (x.long() ** 2).sum().item()


def test_an_infinite_gradient_is_told_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = arrays.norms(torch.tensor([[[3.0, 4.0]], [[1e30, float("nan")]]]), 0)
    assert found[0] == 5
    assert not found[1].isfinite()


def test_nothing_of_a_tensor_is_read_so_that_its_memory_could_not_be_freed():
    x = torch.randn(4, 3, 5)
    arrays.squared(x)
    arrays.norms(x, 1)
    x.untyped_storage().resize_(0)
