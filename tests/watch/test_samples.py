"""What is one sample and how many time steps it has, however the training loop is written."""

import gc

import pytest
import snntorch as snn
import torch
from snntorch import utils
from torch import nn

from .little_nets import OwnNeuron, Spike


N_STEPS, BATCH = 10, 8


class HandedState(nn.Module):
    """An own neuron whose state is a tuple that the loop hands on, under a name of its own."""

    def forward(self, x, carried=None):
        u, s = (torch.zeros_like(x),) * 2 if carried is None else carried
        u = 0.8 * u * (1 - s.detach()) + x
        s = Spike.apply(u - 1.0)
        return s, (u, s)


class PackedState(HandedState):
    """The same with one tensor for all that it hands on."""

    def forward(self, x, carried=None):
        s, carried = super().forward(x, None if carried is None else carried.unbind(0))
        return s, torch.stack(carried)


class Handed(nn.Module):
    def __init__(self, neuron=HandedState):
        super().__init__()
        torch.manual_seed(0)
        self.fc1, self.act, self.fc2 = nn.Linear(20, 30), neuron(), nn.Linear(30, 4)

    def forward(self, x, carried=None):
        s, carried = self.act(2 * self.fc1(x), carried)
        return self.fc2(s), carried


def timing(stored, layer):
    return stored(
        f"SELECT step, phase, sum_ttfs_length_steps / n_ttfs_pairs AS n_steps, n_ttfs_fired AS "
        f"fired, sum_ttfs_steps AS total FROM timing WHERE layer = '{layer}' ORDER BY step, phase"
    )


def first_spikes(spikes):
    """How many fire, and the sum of their first time steps; `spikes` [T, B, N]."""
    fired = (spikes != 0).any(0)
    return fired.sum().item(), (spikes != 0).float().argmax(0)[fired].sum().item()


@pytest.mark.parametrize("neuron", [HandedState, PackedState])
def test_a_potential_that_comes_from_the_call_before_goes_on_with_its_sample(
    watched, stored, neuron
):
    net, seen = Handed(neuron), []
    net.act.register_forward_hook(lambda _m, _a, out: seen.append(out[0].detach()))
    watch = watched(net)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    for _ in range(2):
        carried, total = None, 0
        for _ in range(N_STEPS):
            y, carried = net(torch.rand(BATCH, 20), carried)
            total = total + y
        total.square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    watch.close()
    got = timing(stored, "act")
    assert got["n_steps"].to_list() == [N_STEPS] * 2
    steps = torch.stack(seen).view(2, N_STEPS, BATCH, 30)
    assert got.select("fired", "total").rows() == [first_spikes(s) for s in steps]
    energy = stored("SELECT n_samples, sops_per_sample, n_sops FROM energy WHERE layer = 'fc2'")
    assert set(energy["n_samples"]) == {BATCH}
    assert energy["n_sops"].to_list() == [s.sum().item() * 4 for s in steps]


def test_parts_of_a_batch_whose_gradients_add_up_are_samples_of_their_own(watched, stored):
    net = Handed()
    watch = watched(net)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    for _ in range(N_STEPS):
        net(torch.rand(BATCH, 20))[0].square().mean().backward()
    optimizer.step()
    watch.close()
    assert timing(stored, "act")["n_steps"].to_list() == [1]
    energy = stored("SELECT n_samples FROM energy WHERE layer = 'fc2'")
    assert energy["n_samples"].to_list() == [BATCH * N_STEPS]


@pytest.mark.parametrize("n_steps", [1, 5, 10, 20])
def test_truncated_backpropagation_through_time_has_its_dear_readings(watched, stored, n_steps):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.fc, self.lif = nn.Linear(20, 50), snn.Leaky(beta=0.9)

        def forward(self, x, mem):
            return self.lif(self.fc(x), mem)

    net = Net()
    watch = watched(net)
    optimizer = torch.optim.SGD(net.parameters(), 1e-3)
    for _ in range(70 * n_steps // 20 + 1):
        mem, loss = torch.zeros(4, 50), 0
        for t in range(20):
            s, mem = net(torch.rand(4, 20), mem)
            loss = loss + (s.mean() - 0.1) ** 2
            if t % n_steps == n_steps - 1:
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                mem, loss = mem.detach(), 0
    watch.close()
    got = stored("""
        SELECT count(*) AS n, count(n_sg) AS n_sg, count(n_membrane) AS n_membrane
        FROM dynamics LEFT JOIN gradients USING (step, layer) LEFT JOIN membrane USING (step, layer)
    """)
    assert got["n"].item() >= 10
    assert got["n_sg"].item() == got["n_membrane"].item() == got["n"].item()


def test_a_layer_that_nothing_has_reached_yet_begins_no_sample(watched, stored):
    net = nn.Sequential(
        nn.Linear(8, 20, bias=False),
        snn.Leaky(beta=0.9, init_hidden=True),
        nn.Linear(20, 20, bias=False),
        snn.Leaky(beta=0.9, init_hidden=True),
    )
    torch.manual_seed(0)
    nn.init.uniform_(net[0].weight, 0.02, 0.10)
    nn.init.uniform_(net[2].weight, 0.01, 0.04)
    seen = []
    net[3].register_forward_hook(lambda _m, _a, out: seen.append(out.detach()))
    optimizer = torch.optim.SGD(net.parameters(), 1e-4)
    watch = watched(net)
    for phase in ("train", "eval"):
        net.train(phase == "train")
        with torch.set_grad_enabled(phase == "train"):
            utils.reset(net)
            total = sum(net(torch.rand(BATCH, 8)) for _ in range(12))
        if phase == "train":
            total.square().mean().backward()
            optimizer.step()
    watch.close()
    got = timing(stored, "3")
    assert got["n_steps"].to_list() == [12, 12]
    assert torch.stack(seen[12:15]).sum() == 0
    assert got.select("fired", "total").rows() == [
        first_spikes(torch.stack(seen[:12])), first_spikes(torch.stack(seen[12:]))
    ]  # fmt: skip


def test_a_layer_that_starts_anew_at_each_time_step_does_not_tell_how_many_samples(watched, stored):
    class Anew(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.lif = nn.Linear(20, 50), snn.Leaky(beta=0.9)

        def forward(self, x):
            return self.lif(self.fc(x), self.lif.init_leaky())[0]

    torch.manual_seed(0)
    net = nn.Sequential(Anew(), nn.Linear(50, 50), snn.Leaky(beta=0.9, init_hidden=True))
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    watch = watched(net)
    utils.reset(net)
    sum(net(5 * torch.rand(BATCH, 20)) for _ in range(N_STEPS)).mean().backward()
    optimizer.step()
    watch.close()
    got = stored("SELECT n_samples, sum_time_steps FROM energy WHERE layer = '1'")
    assert got.rows() == [(BATCH, BATCH * N_STEPS)]


def test_a_readout_of_the_mean_over_time_runs_once_a_sample(watched, stored):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.act, self.fc2 = nn.Linear(20, 30), OwnNeuron(), nn.Linear(30, 4)

        def forward(self, x):
            self.act.mem = None
            return self.fc2(torch.stack([self.act(self.fc1(frame)) for frame in x]).mean(0))

    torch.manual_seed(0)
    net = Net()
    watch = watched(net)
    net(4 * torch.rand(N_STEPS, BATCH, 20)).square().mean().backward()
    torch.optim.SGD(net.parameters(), 0.1).step()
    watch.close()
    got = stored("SELECT layer, n_samples, sum_time_steps AS n, energy_ratio_equal_cost AS r "
                 "FROM energy ORDER BY layer")  # fmt: skip
    assert got["n"].to_list() == [BATCH * N_STEPS, BATCH]
    assert set(got["n_samples"]) == {BATCH}
    assert got["r"][1] == pytest.approx(1.0)  # it is given means, and multiplies


def test_an_evaluation_at_the_end_is_kept_when_the_model_is_gone(watched, stored):
    def main():
        net = Handed()
        watch = watched(net)
        optimizer = torch.optim.SGD(net.parameters(), 0.1)
        net(torch.rand(BATCH, 20))[0].square().mean().backward()
        optimizer.step()
        net.eval()
        with torch.no_grad():
            net(torch.rand(BATCH, 20))
        return watch

    watch = main()
    gc.collect()
    watch.close()  # it has ended already; this waits until all is written
    assert timing(stored, "act")["phase"].to_list() == ["train", "eval"]


class Scaled(OwnNeuron):
    """A neuron with something to train."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(4.0))

    def forward(self, x):
        return super().forward(self.scale * x)


@pytest.mark.parametrize("every", [1, 10, "auto"])
@pytest.mark.parametrize("make", [Scaled, lambda: snn.RLeaky(beta=0.9, linear_features=6)])
def test_a_model_that_is_a_neuron_itself_is_watched_like_any(watched, stored, make, every):
    torch.manual_seed(0)
    net = make()
    optimizer = torch.optim.SGD(net.parameters(), 1e-3)
    watch = watched(net, every=every)
    for _ in range(40):
        state = () if isinstance(net, OwnNeuron) else net.init_rleaky()
        net.mem = None
        for _ in range(3):
            out = net(torch.rand(5, 6), *state)
            state = out if isinstance(out, tuple) else ()
        (out[0] if state else out).sum().backward()
        optimizer.step()
    watch.close()
    n_obs = stored("SELECT n_obs FROM spikes")["n_obs"]
    assert n_obs.len() >= (1 if every == "auto" else 4)
    assert set(n_obs) == {3 * 5}


def test_every_step_counts_of_parts_that_are_trained_apart(watched, stored):
    class ActorCritic(nn.Module):
        def __init__(self):
            super().__init__()
            self.actor = nn.Sequential(nn.Linear(6, 12), snn.Leaky(beta=0.9), nn.Linear(12, 2))
            self.critics = nn.ModuleList([nn.Sequential(nn.Linear(8, 12), nn.Linear(12, 1))])

    torch.manual_seed(0)
    net = ActorCritic()
    act, critic = net.actor, net.critics[0]
    watch = watched(net)
    first, second = (torch.optim.SGD(m.parameters(), 1e-3) for m in (act, critic))
    for step in range(30):
        x = torch.rand(4, 6)
        critic(torch.cat([x, x[:, :2]], 1)).square().mean().backward()
        second.step()
        act[0](x).square().mean().backward()
        act[2](act[1](act[0](x), torch.zeros(4, 12))[0]).square().mean().backward()
        first.step()
        assert watch.step == 2 * (step + 1)
    watch.close()
    assert stored("SELECT message FROM events WHERE message LIKE '%no forward%'").height == 0


class ForwardForward(nn.Module):
    """A layer that an optimizer of its own trains."""

    def __init__(self, n_in, n_out):
        super().__init__()
        self.fc, self.lif = nn.Linear(n_in, n_out), snn.Leaky(beta=0.9)

    def forward(self, x):
        mem, spikes = self.lif.init_leaky(), []
        for t in range(N_STEPS):
            s, mem = self.lif(self.fc(x[t]), mem)
            spikes.append(s)
        return torch.stack(spikes)


def test_layers_that_are_trained_one_by_one_are_evaluated_one_by_one(watched, stored):
    torch.manual_seed(0)
    net = nn.Sequential(ForwardForward(20, 16), ForwardForward(16, 12))
    optimizers = [torch.optim.SGD(layer.parameters(), 1e-3) for layer in net]
    watch = watched(net)
    for _ in range(2):
        views = [4 * torch.rand(N_STEPS, BATCH, 20) for _ in range(2)]
        for layer, optimizer in zip(net, optimizers, strict=True):
            sum(layer(x).mean() for x in views).backward()
            optimizer.step()
            with torch.no_grad():
                views = [layer(x) for x in views]
    watch.close()
    for layer in ("0", "1"):
        got = timing(stored, f"{layer}.lif")
        assert set(got["phase"]) == {"train", "eval"}
        assert set(got["n_steps"]) == {N_STEPS}
        energy = stored(f"SELECT n_samples FROM energy WHERE layer = '{layer}.fc'")["n_samples"]
        assert set(energy) == {2 * BATCH}


def test_of_packed_sequences_it_is_told_that_samples_cannot_be_told_apart(watched, stored):
    class Packed(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.lif, self.out = nn.Linear(20, 16), snn.Leaky(beta=0.9), nn.Linear(16, 4)

        def forward(self, packed):
            mem, total = self.lif.init_leaky(), 0.0
            for x in packed.data.split(packed.batch_sizes.tolist()):
                s, mem = self.lif(self.fc(x), mem[: len(x)] if mem.dim() else mem)
                total = total + self.out(s).square().sum()
            return total

    torch.manual_seed(0)
    net = Packed()
    optimizer = torch.optim.SGD(net.parameters(), 1e-3)
    watch = watched(net)
    for _ in range(2):
        lengths = (9, 7, 7, 4)
        net(nn.utils.rnn.pack_sequence([torch.rand(n, 20) for n in lengths])).backward()
        optimizer.step()
    watch.close()
    assert stored("SELECT n_samples FROM energy")["n_samples"].null_count() == 4
    assert stored("SELECT * FROM timing WHERE n_ttfs_pairs > 0").is_empty()
    notes = stored("SELECT layer, message FROM events WHERE kind = 'note'")
    assert notes["layer"].to_list() == ["lif"]
    assert "packed" in notes["message"].item()
