"""What few trainings do, and what a watch must leave alone all the same."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from spikewatch import callers

from .little_nets import OwnNeuron, Spike, TernaryLinear


def in_place(ctx, gradient):
    (u,) = ctx.saved_tensors
    return gradient * u.abs_().mul_(10).add_(1).pow_(-2)


def in_place_on_an_attribute(ctx, gradient):
    return gradient * ctx.u.abs_().mul_(10).add_(1).pow_(-2)


def lets_go(ctx, gradient):
    u = ctx.u
    del ctx.u
    return gradient * (1 + 10 * u.abs()) ** -2


class Annealed:
    width = 1.0


def anneals(ctx, gradient):
    Annealed.width *= 0.9
    return gradient * (ctx.saved_tensors[0].abs() < Annealed.width)


BACKWARDS = [in_place, in_place_on_an_attribute, lets_go, anneals]


def spiking(backward):
    class Spike(torch.autograd.Function):
        @staticmethod
        def forward(ctx, u):
            ctx.save_for_backward(u)
            ctx.u = u.clone()
            return (u > 0).to(u.dtype)

    Spike.backward = staticmethod(backward)

    class Neuron(nn.Module):
        def __init__(self):
            super().__init__()
            self.threshold = 0.5

        def forward(self, x):
            return Spike.apply(x - self.threshold)

    return Neuron()


def train(net, x, *, n_steps=4):
    torch.manual_seed(1)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    losses = []
    for _ in range(n_steps):
        loss = net(x).square().sum()
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
        optimizer.zero_grad()
    return losses + [p.double().sum().item() for p in net.parameters()]


def same_with_and_without(watched, build, x, **how):
    torch.manual_seed(0)
    expected = train(build(), x, **how)
    torch.manual_seed(0)
    net = build()
    watched(net)
    assert train(net, x, **how) == expected
    return net


@pytest.mark.parametrize("backward", BACKWARDS, ids=lambda f: f.__name__)
def test_a_surrogate_s_backward_may_have_effects(watched, backward):
    def build():
        Annealed.width = 1.0
        return nn.Sequential(nn.Linear(8, 16), spiking(backward), nn.Linear(16, 4))

    same_with_and_without(watched, build, torch.rand(5, 8))


def test_a_block_that_checkpoints_its_own_body_runs_it_no_more_often(watched):
    class Spiking(nn.Module):
        """A neuron itself: what it returns was made in the checkpoint, which is over by then."""

        def __init__(self):
            super().__init__()
            self.fc, self.norm, self.threshold = nn.Linear(8, 6), nn.BatchNorm1d(6), 1.0
            self.n_runs = 0

        def body(self, x):
            self.n_runs += 1
            return Spike.apply(self.norm(self.fc(x)) - self.threshold)

        def forward(self, x):
            return checkpoint(self.body, x, use_reentrant=False)

    net = same_with_and_without(watched, Spiking, torch.rand(5, 8, requires_grad=True))
    assert net.n_runs == 2 * 4
    assert net.norm.num_batches_tracked == 2 * 4


def test_a_convolution_with_noise_of_its_own_draws_no_more_of_it(watched):
    class Noisy(nn.Conv2d):
        def _conv_forward(self, x, weight, bias):
            return super()._conv_forward(x, weight + 0.1 * torch.randn_like(weight), bias)

    def build():
        return nn.Sequential(Noisy(1, 4, 3), OwnNeuronAnew(), nn.Flatten(), nn.Linear(144, 3))

    same_with_and_without(watched, build, torch.rand(5, 1, 8, 8))


class OwnNeuronAnew(OwnNeuron):
    def forward(self, x):
        self.mem = None
        return super().forward(x)


def test_storages_of_spikes_and_potentials_can_be_resized_afterwards(watched):
    class Frees(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.act = nn.Linear(8, 6), OwnNeuronAnew()

        def forward(self, x):
            spikes = self.act(self.fc(x))
            out = spikes * 1.0
            spikes.untyped_storage().resize_(0)
            return out

    same_with_and_without(watched, Frees, torch.rand(5, 8))


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_torch_s_own_attention_is_fused_in_evaluations_as_without_us(watched):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
            self.encoder = nn.TransformerEncoder(layer, 1)
            self.own = nn.Parameter(torch.randn(8, 8))
            self.fc, self.act = TernaryLinear(8, 8), OwnNeuronAnew()

        def forward(self, x, mask):
            return self.act(self.fc(self.encoder(x, src_key_padding_mask=mask) @ self.own))

    torch.manual_seed(0)
    net = Net().eval()
    x, mask = torch.randn(3, 6, 8), torch.arange(6).expand(3, 6) > 3
    with torch.no_grad():
        expected = net.encoder(x, src_key_padding_mask=mask), net(x, mask)
        watched(net)
        got = []
        net.encoder.register_forward_hook(lambda _m, _a, out: got.append(out))
        outputs = [net(x, mask) for _ in range(3)]
    for encoded, spikes in zip(got, outputs, strict=True):
        assert torch.equal(encoded, expected[0])
        assert torch.equal(spikes, expected[1])


def test_a_leaf_that_is_tapped_again_and_again_keeps_no_hooks(watched):
    import spikewatch

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.code = nn.Parameter((torch.rand(5, 8) > 0.5).float())
            self.fc, self.act = nn.Linear(8, 6), OwnNeuronAnew()

        def forward(self):
            return self.act(self.fc(spikewatch.tap("code", self.code)))

    net = Net()
    watch = watched(net)
    for _ in range(5):
        net().sum().backward()
        net.zero_grad()
    watch.detach()
    assert not net.code._backward_hooks


def test_no_fault_comes_of_an_empty_batch_or_of_inference_mode(watched, stored):
    net = nn.Sequential(TernaryLinear(8, 6), OwnNeuronAnew(), nn.Linear(6, 2))
    watch = watched(net)
    train(net, torch.rand(5, 8))
    train(net, torch.rand(0, 8), n_steps=2)
    train(net, torch.rand(5, 8))
    net.eval()
    with torch.inference_mode():
        net(torch.rand(5, 8))
    net.train()
    train(net, torch.rand(5, 8))
    watch.close()
    assert stored("FROM events WHERE kind = 'fault'").is_empty()


@pytest.mark.parametrize("wait", [True, False], ids=["number", "on its device"])
def test_gradients_are_told_without_the_factor_of_a_loss_scaler(watched, stored, monkeypatch, wait):
    if not wait:
        monkeypatch.setattr(callers, "can_be_looked_at", lambda _: False)
    told = []
    for enabled in (False, True):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(8, 6), OwnNeuronAnew(), nn.Linear(6, 2))
        watch = watched(net, run=f"scaled {enabled}")
        optimizer = torch.optim.SGD(net.parameters(), 0.1)
        scaler = torch.amp.GradScaler("cpu", 2.0**16, growth_interval=1, enabled=enabled)
        for _ in range(3):
            optimizer.zero_grad()
            scaler.scale(net(2 * torch.rand(5, 8)).square().mean()).backward()
            scaler.step(optimizer)
            scaler.update()
        watch.close()
        told.append(stored(f"SELECT grad_norm FROM gradients WHERE run = '{watch.run}'"))
    assert told[0].height == 3
    assert told[0].equals(told[1])  # a power of two changes no digit


@pytest.mark.parametrize("every", [1, 2])
def test_a_gradient_that_comes_a_step_later_is_counted_where_it_comes(watched, stored, every):
    def gan(norms):
        for _ in range(3):
            fake = net.made(torch.rand(5, 8))
            fake.register_hook(lambda g: norms.append(g.norm().item()))
            for optimizer, made in ((of_judge, fake.detach()), (of_maker, fake)):
                optimizer.zero_grad()
                net.judged(made).square().mean().backward()
                optimizer.step()

    torch.manual_seed(0)
    net, norms = nn.Module(), []
    net.made = nn.Sequential(nn.Linear(8, 6), OwnNeuronAnew())
    net.judged = nn.Sequential(nn.Linear(6, 6), OwnNeuronAnew(), nn.Linear(6, 1))
    of_maker, of_judge = (torch.optim.SGD(m.parameters(), 0.1) for m in (net.made, net.judged))
    watch = watched(net, every=every)
    gan(norms)
    watch.close()
    told = stored(
        "SELECT step, grad_norm FROM gradients WHERE layer = 'made.1' ORDER BY step"
    ).rows()
    late = [(2 * i + 1, pytest.approx(norm)) for i, norm in enumerate(norms)]
    unknown = [(2 * i, None) for i in range(3)]
    assert told == sorted(unknown + (late if every == 1 else []), key=lambda row: row[0])
