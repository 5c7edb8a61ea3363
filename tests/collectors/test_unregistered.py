"""Neurons in plain lists and dictionaries are told aloud, and nothing else is."""

import pytest
import snntorch as snn
import torch
from torch import nn

import spikewatch
from spikewatch.collectors.unregistered import why_unwatched
from spikewatch.errors import AttachError


def block():
    return nn.Sequential(nn.Linear(4, 4), snn.Leaky(beta=0.9, init_hidden=True))


class Net(nn.Module):
    def __init__(self, **held):
        super().__init__()
        self.seen = block()
        for name, value in held.items():
            setattr(self, name, value)


@pytest.mark.parametrize(
    ("held", "names"),
    [
        ([block(), block()], ["held[0].1", "held[1].1"]),
        ((snn.Leaky(beta=0.9),), ["held[0]"]),
        ({"a": block()}, ["held['a'].1"]),
        ([[block()]], ["held[0][0].1"]),
        (nn.ModuleList([block()]), []),
        ([nn.Linear(4, 4)], []),  # a teacher, say, that is not to be trained
        ([0.5, "relu", None, torch.zeros(3)], []),
    ],
)
def test_neurons_that_are_no_modules_of_the_model_are_found(held, names):
    told = why_unwatched(nn.Sequential(Net(held=held)))
    assert [name for name in names if f"'0.{name}'" in told.replace('"', "'")] == names
    assert bool(told) == bool(names)


def test_a_list_of_what_the_model_has_already_is_right():
    net = Net()
    net.order = [net.seen, net.seen[1]]
    assert not why_unwatched(net)


def test_the_user_is_told_aloud_and_the_run_has_it(tmp_path, caplog):
    with spikewatch.attach(Net(mixers=[block()]), dir=tmp_path, every=1, quiet=True):
        pass
    assert "'mixers[0].1': kept in a plain list" in caplog.text
    with spikewatch.open_store(tmp_path) as store:
        notes = store.sql("SELECT message FROM events WHERE kind = 'note'")["message"]
    assert "nn.ModuleList" in notes.item()


def test_where_nothing_else_is_there_to_watch_they_are_told_beside_the_error(tmp_path, caplog):
    net = Net(mixers=[block()])
    net.seen = nn.Linear(4, 4)
    with pytest.raises(AttachError):
        spikewatch.attach(net, dir=tmp_path)
    assert "'mixers[0].1': kept in a plain list" in caplog.text
