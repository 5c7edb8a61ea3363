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
    assert arrays.squared(arrays.as_seen(x)) == (x.long() ** 2).sum().item()


def test_an_infinite_gradient_is_told_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = arrays.norms(torch.tensor([[[3.0, 4.0]], [[1e30, float("nan")]]]), 0)
    assert found[0] == 5
    assert not found[1].isfinite()


def test_nothing_of_a_tensor_is_read_so_that_its_memory_could_not_be_freed():
    x = torch.randn(4, 3, 5)
    seen = arrays.as_seen(x)
    arrays.squared(seen)
    arrays.total_over(seen, (0, 1))
    del seen
    arrays.norms(x, 1)
    x.untyped_storage().resize_(0)


@pytest.mark.parametrize("dims", [(), (0,), (0, 1), (1,), (0, 3)])
@pytest.mark.parametrize("contiguous", [True, False])
def test_sums_over_any_dimensions_are_numpys(dims, contiguous):
    x = torch.randint(-3, 4, (4, 3, 2, 5)).float()
    if not contiguous:
        x = x.permute(3, 2, 1, 0)
    over = arrays.total_over(arrays.as_seen(x), dims)
    assert over.tolist() == (x.numpy().sum(dims) if dims else x).tolist()
    over += 1
    assert x.abs().max() <= 3  # it is a memory of its own


def test_more_whole_numbers_than_float32_can_count_add_up_exactly():
    x = np.full(3, 2.0**24 - 1, np.float32)
    assert arrays.total(x, wide=True) == 3 * (2**24 - 1)


def test_infinite_spikes_are_added_up_without_a_warning():
    x = torch.tensor([[np.inf, 1.0], [-np.inf, 1.0]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        over = arrays.total_over(arrays.as_seen(x), (0,))
        assert np.isnan(arrays.total(over, wide=False))
