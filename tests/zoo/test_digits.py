"""The demo's network learns real digits, and is healthy while it does."""

import torch

from spikewatch.zoo import LIF, DigitsNet, TernarySpike, load_digits
from spikewatch.zoo.digits import accuracy


def test_the_split_keeps_every_class_and_shares_no_image():
    train, test = load_digits(seed=3)
    assert len(train) + len(test) == 1797
    assert train.labels.unique().tolist() == test.labels.unique().tolist() == list(range(10))
    assert 0 <= train.images.min() < train.images.max() <= 1


def test_batches_are_shuffled_by_their_own_generator():
    train, _ = load_digits()
    state = torch.get_rng_state()
    first = [y for _, y in train.batches(64, generator=torch.Generator().manual_seed(1))]
    again = [y for _, y in train.batches(64, generator=torch.Generator().manual_seed(1))]
    assert len(first) == len(train) // 64
    assert all(map(torch.equal, first, again))
    assert not torch.equal(first[0], train.labels[:64])
    assert torch.equal(torch.get_rng_state(), state)


def test_it_learns_more_than_nine_digits_of_ten_with_all_neurons_alive():
    torch.manual_seed(0)
    train, test = load_digits()
    net, generator = DigitsNet(), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    for _ in range(8):
        for images, labels in train.batches(64, generator=generator):
            loss = torch.nn.functional.cross_entropy(net(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert accuracy(net, test) > 0.93

    fired = {}
    for name, module in net.named_modules():
        if isinstance(module, LIF | TernarySpike):
            module.register_forward_hook(_count(fired, name))
    net(train.images)
    assert len(fired) == 3
    for name, counts in fired.items():
        assert (counts == 0).float().mean() < 0.05, name


def _count(fired, name):
    def hook(module, args, output):
        spikes = output[0] if isinstance(output, tuple) else output
        fired[name] = fired.get(name, 0) + spikes.ne(0).sum(0)

    return hook
