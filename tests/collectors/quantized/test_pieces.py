"""All weights of a large layer are read, and nothing of its size is made for it."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from spikewatch.collectors.quantized import reading
from spikewatch.collectors.quantized.instruments import INSTRUMENTS
from spikewatch.collectors.quantized.levels import judge
from spikewatch.collectors.quantized.pieces import PIECE, Shift
from spikewatch.collectors.quantized.reading import Weights
from spikewatch.zoo.ternary_linear import ternarize


ROWS, COLUMNS = 2, 1024  # of a piece


class Made(TorchDispatchMode):
    """Sizes of the tensors that operations make anew: those larger than half a piece."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        given = {x.untyped_storage().data_ptr() for x in tensors((args, kwargs))}
        for x in tensors(result):
            if x.device.type == "cpu" and x.untyped_storage().data_ptr() not in given:
                self.sizes += [x.numel()] if x.numel() > COLUMNS * ROWS // 2 else []
        return result


def tensors(tree):
    return [x for x in torch.utils._pytree.tree_leaves(tree) if isinstance(x, torch.Tensor)]


LAYOUTS = {
    "rows": lambda w: w,
    "transposed": lambda w: w.t().contiguous().t(),
    "low precision": lambda w: w.bfloat16(),
}


def made(monkeypatch, n_pieces, *, layout, shifted, most_tracked):
    """What two looks make, the second one of which follows the changes since the first."""
    monkeypatch.setitem(PIECE, "cpu", ROWS * COLUMNS)
    monkeypatch.setattr(reading, "MOST_NUMBERS", 128)
    monkeypatch.setattr(reading, "_FOLLOWED_AT_ONCE", 128)
    torch.manual_seed(0)
    latent = torch.randn(ROWS * n_pieces, COLUMNS)
    weight = ternarize(latent) + 0.1 * shifted
    weight, latent = layout(weight), layout(latent)
    levels = judge(weight)
    assert (levels.form, levels.shifted) == ("ternary", shifted)
    shift = Shift.of(weight, levels, stacked=False) if shifted else None
    instruments, layer = [make() for make in INSTRUMENTS], nn.Linear(1, 1)
    with Made() as mode, torch.no_grad():
        for step in range(2):
            seen = Weights(
                weight, latent, levels.granularity, layer, step=step, most_tracked=most_tracked,
                levels=levels, shift=shift,
            )  # fmt: skip
            for instrument in instruments:
                instrument.read(seen)
    return sorted(mode.sizes)


@pytest.mark.parametrize(
    ("layout", "shifted"),
    [(name, False) for name in LAYOUTS] + [("rows", True), ("transposed", True)],
)
@pytest.mark.parametrize("most_tracked", [128, 10**6])
def test_however_large_a_layer_is_the_same_few_buffers_are_used(
    monkeypatch, layout, shifted, most_tracked
):
    options = {"layout": LAYOUTS[layout], "shifted": shifted, "most_tracked": most_tracked}
    few, many = (made(monkeypatch, n, **options) for n in (8, 64))
    state = 8 * ROWS * COLUMNS if most_tracked == 10**6 else 0
    assert [n for n in few if n != state] == [n for n in many if n != 8 * state]
    assert max(few, default=0) <= max(state, ROWS * COLUMNS)
