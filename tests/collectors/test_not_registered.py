"""What `attach()` says of a model whose neurons torch does not know of."""

import re

import pytest
import snntorch as snn
from torch import nn

from spikewatch.errors import AttachError
from spikewatch.finding import Finder


class Net(nn.Module):
    def __init__(self, held):
        super().__init__()
        self.body = nn.Linear(4, 4)
        self.sizes = [4, (4, 4)]
        self.body.neurons = held


def said_of(held):
    with pytest.raises(AttachError) as told:
        Finder(named={}).find(Net(held))
    return str(told.value)


@pytest.mark.parametrize(
    ("held", "remedy"),
    [
        ([snn.Leaky(beta=0.9)], "plain list .*Leaky.* nn.ModuleList"),
        (({"a": (snn.Leaky(beta=0.9),)},), "plain tuple .*Leaky.* nn.ModuleList"),
        ({"a": snn.Leaky(beta=0.9)}, "plain dict .*Leaky.* nn.ModuleDict"),
    ],
)
def test_neurons_in_a_plain_container_are_named_as_the_cause(held, remedy):
    message = said_of(held)
    assert "'body.neurons' is a " in message
    assert re.search(remedy, message)


def test_modules_that_are_registered_too_and_what_holds_itself_are_no_cause():
    net = Net([])
    net.body.neurons = [net.body]
    net.body.neurons.append(net.body.neurons)
    with pytest.raises(AttachError) as told:
        Finder(named={}).find(net)
    assert "plain" not in str(told.value).replace("plain layers", "")
