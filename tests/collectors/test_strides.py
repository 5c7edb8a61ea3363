"""Which elements stand for all of a large tensor."""

import numpy as np
import pytest
from hypothesis import given, strategies as st

from spikewatch.collectors.strides import fair_stride


@pytest.mark.parametrize("shape", [(4, 8, 14, 14), (16, 32, 28, 28), (8, 16, 7, 7), (64, 1024)])
def test_every_index_of_every_axis_is_met_about_as_often(shape):
    taken = np.arange(np.prod(shape))[:: fair_stride(int(np.prod(shape)), 1024)]
    for axis, size in zip(np.unravel_index(taken, shape), shape, strict=True):
        times = np.bincount(axis, minlength=size)
        assert times.min() >= 0.5 * len(taken) / size - 1


@given(st.integers(1, 10**7), st.integers(1, 4096))
def test_no_more_are_taken_than_asked_for(n, most):
    stride = fair_stride(n, most)
    assert 1 <= len(range(0, n, stride)) <= most
    assert stride == 1 or n > most
