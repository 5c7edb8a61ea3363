"""All weights in one pass: dead rows and columns, NaN, pieces; against plain comparisons."""

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import nn

from spikewatch.collectors.quantized import level_sums, pieces
from spikewatch.collectors.quantized.counts import LevelCounts
from spikewatch.collectors.quantized.reading import Weights
from spikewatch.zoo.ternary_linear import ternarize


def counts(quantized, latent=None, *, module=None, granularity="tensor"):
    latent = quantized if latent is None else latent
    weights = Weights(quantized, latent, granularity, module or nn.Linear(1, 1))
    row = LevelCounts().read(weights).tables["weights"]
    return {k: float(v) for k, v in row.items()}


def test_dead_rows_and_columns_by_hand():
    row = counts(torch.tensor([[0.0, 0, 0, 0], [1, 0, -1, 0], [0, 0, 1, 0]]))
    assert (row["n_rows"], row["n_dead_rows"]) == (3, 1)
    assert (row["n_columns"], row["n_dead_columns"]) == (4, 2)
    assert (row["n_weight_positive"], row["n_weight_negative"], row["n_weight_zero"]) == (2, 1, 9)


def test_a_dead_channel_of_a_convolution_is_dead_in_its_whole_kernel():
    weight = torch.zeros(3, 2, 2, 2)
    weight[0, 0, 1, 1] = weight[2, 0, 0, 0] = 1
    row = counts(weight, module=nn.Conv2d(2, 3, 2))
    assert (row["n_dead_rows"], row["n_dead_columns"]) == (1, 1)
    transposed = counts(weight, module=nn.ConvTranspose2d(2, 3, 2))  # a view, outputs first
    assert (transposed["n_rows"], transposed["n_columns"]) == (3, 2)
    assert (transposed["n_dead_rows"], transposed["n_dead_columns"]) == (1, 1)


def test_each_group_of_a_convolution_has_inputs_of_its_own():
    weight = torch.ones(4, 2, 1, 1)  # two groups with two inputs and two outputs each
    weight[2:, 1] = 0  # nobody hears the second input of the second group
    row = counts(weight, module=nn.Conv2d(4, 4, 1, groups=2))
    assert (row["n_columns"], row["n_dead_columns"]) == (4, 1)
    row = counts(weight, module=nn.ConvTranspose2d(4, 4, 1, groups=2))  # (in, out of a group, *)
    assert (row["n_rows"], row["n_dead_rows"]) == (4, 1)
    assert (row["n_columns"], row["n_dead_columns"]) == (4, 0)


def test_not_a_number_is_on_no_side_and_is_counted():
    row = counts(torch.tensor([[float("nan"), 1.0, float("inf"), -1.0]]))
    assert row["n_nonfinite_weights"] == 2
    assert (row["n_weight_positive"], row["n_weight_negative"]) == (2, 1)


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 10**6),
    st.tuples(st.integers(1, 20), st.integers(1, 9), st.integers(1, 3)),
    st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.float64]),
    st.integers(1, 64),
)
def test_pieces_are_counted_as_the_whole_is(seed, shape, dtype, piece):
    w = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    q = ternarize(w, by_row=True).to(dtype)
    w = w.to(dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(pieces.PIECE, "cpu", piece)
        sums = level_sums.level_sums(q)
        deltas = level_sums.unit_deltas(q, w, q[0].numel())
    rows = q.flatten(1).double()
    assert sums.n_positive.tolist() == (rows > 0).sum(1).tolist()
    assert sums.n_negative.tolist() == (rows < 0).sum(1).tolist()
    assert torch.allclose(sums.sum_positive, rows.clamp(min=0).sum(1), rtol=1e-5)
    assert torch.allclose(sums.sum_negative, (-rows).clamp(min=0).sum(1), rtol=1e-5)
    assert sums.used_columns.tolist() == q.ne(0).flatten(2).any(2).any(0).float().tolist()
    zeros = w.double().abs().where(q == 0, torch.zeros((), dtype=torch.float64)).flatten(1)
    assert torch.allclose(deltas.double(), zeros.amax(1))


def test_counts_are_exact_beyond_what_float32_counts_to():
    q = torch.ones(2, 2**24 + 1)
    assert level_sums.level_sums(q).n_positive.sum() == 2 * (2**24 + 1)
