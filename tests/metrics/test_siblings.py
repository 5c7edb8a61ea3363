"""Amplitudes of layers side by side: tied, or each its own."""

import pytest
from hypothesis import given, strategies as st

from spikewatch.metrics.amplitudes import add_siblings


def row(layer, values, *, trained=True):
    return {
        "layer": layer,
        "n_amplitudes": len(values),
        "n_trainable_amplitudes": len(values) * trained,
        "sum_amplitude": sum(values),
        "sum_sq_amplitude": sum(v * v for v in values),
        "amplitude_min": min(values),
        "amplitude_max": max(values),
    }


def found(*rows):
    add_siblings(rows)
    return [(r.get("n_siblings"), r.get("n_tied_siblings")) for r in rows]


KEY, VALUE = "attention.key.spike", "attention.value.spike"


def test_key_and_value_that_are_the_same_are_tied():
    assert found(row(KEY, [1.0, 2.0]), row(VALUE, [1.0, 2.0])) == [(1, 1), (1, 1)]


@pytest.mark.parametrize("other", [[1.0, 2.001], [0.9, 2.1], [2.0, 2.0]])
def test_those_that_differ_are_not(other):
    assert found(row(KEY, [1.0, 2.0]), row(VALUE, other)) == [(1, 0), (1, 0)]


@pytest.mark.parametrize(
    ("one", "other"),
    [("blocks.0.spike", "blocks.1.spike"), ("a.spike", "b.c.spike"), ("a.key", "b.value")],
)
def test_blocks_and_layers_elsewhere_are_no_siblings(one, other):
    assert found(row(one, [1.0]), row(other, [1.0])) == [(0, 0), (0, 0)]


def test_frozen_amplitudes_and_other_numbers_of_them_are_not_compared():
    frozen = row(VALUE, [1.0, 2.0], trained=False)
    assert found(row(KEY, [1.0, 2.0]), frozen, row("attention.query.spike", [1.0])) == [
        (0, 0),
        (None, None),
        (0, 0),
    ]


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=8), st.integers(0, 7))
def test_one_amplitude_apart_unties(values, place):
    changed = list(values)
    changed[place % len(values)] += 1e-3
    assert found(row(KEY, values), row(VALUE, changed)) == [(1, 0), (1, 0)]
