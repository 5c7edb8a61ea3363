"""What levels weights have: how many, shared by what, and none where there are none."""

import pytest
import torch

from spikewatch.collectors.quantized.levels import judge


def gaussian(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 0.02


def rounded(w, bits, size, *, dtype=torch.float32):
    """Symmetric rounding to `bits`, with a scale for each `size` neighbours."""
    most = 2 ** (bits - 1)
    parts = w.reshape(-1, size)
    scale = parts.abs().amax(1, keepdim=True) / (most - 0.5)
    return ((parts / scale).round().clamp(-most, most - 1) * scale).reshape(w.shape).to(dtype)


def absmean(w, size):
    parts = w.reshape(-1, size)
    scale = parts.abs().mean(1, keepdim=True)
    return ((parts / scale).round().clamp(-1, 1) * scale).reshape(w.shape)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("size", [32, 64, 96, 128])
def test_groups_are_not_taken_for_rows_with_more_bits(bits, size):
    """Two groups of a row have few levels together as well, but on no grid."""
    for n_groups in (2, 3, 40):
        found = judge(rounded(gaussian(24, n_groups * size), bits, size))
        assert str(found) == f"{bits} bit, a scale a group"
        assert found.group == size


@pytest.mark.parametrize("size", [32, 64, 96, 128])
def test_ternary_groups_are_known_at_any_place_of_long_rows(size):
    found = judge(absmean(gaussian(24, 40 * size), size))
    assert (found.form, found.granularity) == ("ternary", "group")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bits", [3, 4])
@pytest.mark.parametrize("n", [64, 288, 384, 512, 4096])
def test_rows_are_not_taken_for_groups(bits, n, dtype):
    assert str(judge(rounded(gaussian(24, n), bits, n, dtype=dtype))) == (
        f"{bits} bit, a scale a row"
    )


@pytest.mark.parametrize(("bits", "n"), [(4, 9), (4, 16), (8, 12), (8, 16), (8, 27)])
def test_of_short_rows_all_together_are_evidence(bits, n):
    """None of them alone has many of the levels, and few of them have two next to each other."""
    assert str(judge(rounded(gaussian(64, n), bits, n))) == f"{bits} bit, a scale a row"


@pytest.mark.parametrize("std", [0.07, 0.09, 0.12])
@pytest.mark.parametrize(("n_rows", "n"), [(48, 64), (20, 288), (200, 32), (64, 1024)])
def test_rows_with_few_of_the_levels_of_one_grid_have_one_scale(std, n_rows, n):
    """As slayer rounds them: to steps of 1/32, however few of these are in use."""
    w = (gaussian(n_rows, n) / 0.02 * std * 32).round() / 32
    assert len(w.unique()) > 16
    assert str(judge(w)) == "8 bit, one scale"


@pytest.mark.parametrize("n", [64, 288, 1024])
def test_scales_that_are_powers_of_two_are_a_row_each(n):
    w = gaussian(48, n) * 2.0 ** gaussian(48, 1, seed=1).mul(100).round()
    scale = (w.abs().amax(1, keepdim=True) / 7).log2().round().exp2()
    q = (w / scale).round().clamp(-8, 7) * scale
    assert len(q.unique()) > 16
    assert str(judge(q)) == "4 bit, a scale a row"


def test_weights_half_of_which_are_beyond_the_ends_have_their_bits():
    """A scale by the median: of a row few are left to tell of the grid."""
    w = gaussian(32, 64)
    q = (w * 128 / w.abs().median()).round().clamp(-128, 127)
    assert str(judge(q)) == "8 bit, one scale"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(64, 3), (64, 9), (8, 16), (500, 16), (64, 288), (64, 4096)])
def test_full_precision_is_no_number_of_bits(shape, dtype):
    for seed in range(10):
        assert str(judge(gaussian(*shape, seed=seed).to(dtype))) == "full precision"
        assert str(judge(torch.rand(shape).to(dtype) - 0.5)) == "full precision"
