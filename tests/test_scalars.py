"""What `Watch.log` is given: numbers, and tensors that a GPU has yet to compute."""

import pytest
import snntorch
import torch
from torch import nn

import spikewatch
from spikewatch import scalars


@pytest.fixture(name="logged")
def _logged(tmp_path):
    """Log several times; rows of the scalars and of the faults."""

    def logged(*calls, eval=None):
        net = nn.Sequential(nn.Linear(4, 4), snntorch.Leaky(beta=0.9, init_hidden=True))
        with spikewatch.attach(net, dir=tmp_path, quiet=True) as watch:
            for call in calls:
                watch.log(**call)
            with torch.no_grad():
                watch.log(**(eval or {}))
        with spikewatch.open_store(tmp_path) as store:
            rows = store.sql("SELECT phase, step, name, value FROM scalars ORDER BY ALL").rows()
            faults = store.sql("SELECT layer FROM events WHERE kind = 'fault'").rows()
        return rows, faults

    return logged


def test_what_is_on_its_way_is_stored_like_what_is_there(logged, monkeypatch):
    monkeypatch.setattr(scalars, "is_on_its_way", lambda value: isinstance(value, torch.Tensor))
    shaped, half = torch.tensor([[3.5]]), torch.tensor(4.5, dtype=torch.bfloat16)
    rows, faults = logged({"there": 1.5, "way": torch.tensor(2.5), "b": shaped}, eval={"way": half})
    assert faults == []
    assert rows == [
        ("eval", 0, "way", 4.5),
        ("train", 0, "b", 3.5),
        ("train", 0, "there", 1.5),
        ("train", 0, "way", 2.5),
    ]


@pytest.mark.parametrize("value", [torch.zeros(2), torch.tensor(1j), "one", None])
def test_what_is_no_number_is_a_fault_and_the_others_are_stored(logged, value):
    rows, faults = logged({"broken": value, "good": 1.0})
    assert rows == [("train", 0, "good", 1.0)]
    assert faults == [("broken",)]


def test_a_scalar_may_have_any_name(logged):
    rows, _ = logged({"self": 1.0, "val_loss/dataloader_idx_0": 2.0})
    assert [name for _, _, name, _ in rows] == ["self", "val_loss/dataloader_idx_0"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_training_does_not_wait_for_a_gpu(logged):
    loss = torch.full((), 2.5, device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        rows, _ = logged({"loss": loss})
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert rows == [("train", 0, "loss", 2.5)]
