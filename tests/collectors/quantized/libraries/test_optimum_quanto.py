"""optimum-quanto: weights of its own tensor types, quantized at each step or frozen."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from optimum.quanto import freeze, qfloat8, qint2, qint4, qint8, quantize
from optimum.quanto.library.extensions import get_extension
from torch import nn


LAYERS = {"1": "QConv2d", "4": "QLinear", "6": "QLinear"}
NOTES = {
    qint2: ("2 bit, a scale a row", "2 bit, a scale a group"),
    qint4: ("4 bit, a scale a row", "4 bit, a scale a group"),
    qint8: ("8 bit, a scale a row", "8 bit, a scale a row"),
}


@pytest.fixture(autouse=True)
def _kernel_in_python(monkeypatch):
    """At its first use it compiles a kernel in C++, for a minute; its own one in Python will do."""
    unpack = partial(
        torch.ops.quanto.unpack.default._op_dk, torch._C.DispatchKey.CompositeExplicitAutograd
    )
    monkeypatch.setattr(get_extension("quanto_cpp"), "_lib", SimpleNamespace(unpack=unpack))


def net_of(qtype, *, frozen=False):
    """Groups of 96 in the middle one: no more of 128 would divide its 288 inputs."""

    def make():
        net = nn.Sequential(
            nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(),
            nn.Linear(288, 32), nn.ReLU(), nn.Linear(32, 10),
        )  # fmt: skip
        quantize(net, weights=qtype)
        if frozen:
            freeze(net)
        return net

    return make


@pytest.mark.parametrize("qtype", list(NOTES), ids=str)
def test_weights_are_named_for_their_bits_and_groups(named, qtype):
    by_row, grouped = (("optimum", "quantized", note) for note in NOTES[qtype])
    assert named(net_of(qtype)) == {"1": by_row, "4": grouped, "6": by_row}


def test_a_training_with_2_bits_is_left_alone(trained):
    """Four levels: no ternary weights, whatever their figures would be."""
    run = trained(net_of(qint2))
    assert {n: (x["kind"], x["type"]) for n, x in run.layers.items()} == {
        n: ("quantized", made) for n, made in LAYERS.items()
    }
    assert run.tables["weights"].is_empty()


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("qtype", list(NOTES), ids=str)
def test_frozen_weights_are_named_too_and_left_alone(listen, qtype, grad):
    torch.manual_seed(0)
    net, x = net_of(qtype, frozen=True)(), torch.rand(4, 64)
    expected = net(x)
    heard = listen(net)
    with torch.set_grad_enabled(grad):
        assert torch.equal(net(x), expected)
    by_row, grouped = NOTES[qtype]
    assert {layer.name: layer.note for layer in heard.confirmed} == {
        "1": by_row, "4": grouped, "6": by_row,
    }  # fmt: skip


@pytest.mark.parametrize("frozen", [True, False])
def test_8_bit_floats_are_no_few_levels_and_do_no_harm(listen, frozen):
    torch.manual_seed(0)
    net, x = net_of(qfloat8, frozen=frozen)(), torch.rand(4, 64)
    expected = net(x)
    heard = listen(net)
    with torch.no_grad():
        assert torch.equal(net(x), expected)
    assert heard.confirmed == []
    assert {name for name, _ in heard.notes} == set(LAYERS)
