"""sinabs: batch first, several spikes a step, squeezed batches."""

import pytest
import sinabs
import torch
from sinabs import layers
from sinabs.activation import MembraneReset, MembraneSubtract, MultiGaussian
from sinabs.from_torch import from_model
from sinabs.synopcounter import SNNAnalyzer
from torch import nn

import spikewatch


@pytest.mark.parametrize("squeezed", [False, True])
def test_squeezed_and_plain_layers_give_the_same_figures(listen, squeezed):
    torch.manual_seed(0)
    neuron = layers.IAFSqueeze(batch_size=3) if squeezed else layers.IAF()
    net = nn.Sequential(neuron)
    heard = listen(net)
    x = 3 * torch.rand(3, 7, 5)
    out = net(x.flatten(0, 1) if squeezed else x)
    row = heard.flush("0", "spikes")
    assert (row["n_obs"], row["n_neurons"]) == (21, 5)
    assert row["n_spikes"] == out.count_nonzero()
    assert row["sum_abs_spike"] == out.sum() > row["n_spikes"]  # several spikes in a step


def test_the_negative_lobes_of_a_multi_gaussian_surrogate_are_no_wrong_sign(listen):
    torch.manual_seed(1)
    net = nn.Sequential(layers.IAF(surrogate_grad_fn=MultiGaussian()), layers.IAF())
    heard = listen(net)
    net(3 * torch.randn(4, 12, 6, requires_grad=True))
    row = heard.flush("0", "gradients")
    assert row["n_sg"] == 288
    assert row["n_sg_negative"] == 0


def test_the_slope_is_read_at_every_step(listen):
    torch.manual_seed(1)
    net = nn.Sequential(layers.LIF(tau_mem=10.0))
    heard = listen(net)
    net(5 * torch.rand(2, 6, 4, requires_grad=True)).sum().backward()
    row = heard.flush("0", "gradients")
    assert (row["n_sg"], row["n_sg_neurons"], row["n_grad"]) == (48, 4, 48)


def test_layers_that_do_not_spike_are_left_out(listen):
    assert list(listen(nn.Sequential(layers.ExpLeak(10.0), layers.LIF(10.0))).observers) == ["1"]


def test_the_squeezed_axis_is_unfolded_in_time(listen, told):
    torch.manual_seed(2)
    neuron = layers.LIFSqueeze(tau_mem=10.0, num_timesteps=6)
    net = nn.Sequential(nn.Linear(4, 5), neuron)
    heard, seen = listen(net), told(neuron)
    x = 20 * torch.rand(3, 6, 4)
    out = net(x.flatten(0, 1))
    gradient = torch.rand_like(out)
    out.backward(gradient)
    tables = heard.tables("1")
    assert (tables["spikes"]["n_obs"], tables["spikes"]["n_neurons"]) == (18, 5)
    assert tables["gradients"]["n_sg"] == 90
    steps = gradient.unflatten(0, (3, 6)).square().sum((0, 2))
    assert tables["gradients"]["sum_sq_grad_first"] == pytest.approx(steps[0].item(), rel=1e-5)
    assert tables["gradients"]["sum_sq_grad_last"] == pytest.approx(steps[-1].item(), rel=1e-5)
    assert seen.membranes[0].potential.shape == (3, 5)


def streaming(squeezed):
    torch.manual_seed(0)
    options = {"tau_mem": 10.0, "tau_syn": 5.0, "norm_input": False}
    neuron = layers.LIFSqueeze(**options, batch_size=3) if squeezed else layers.LIF(**options)
    return nn.Sequential(nn.Linear(6, 5), neuron, nn.Linear(5, 4))


@pytest.mark.parametrize("squeezed", [False, True])
@pytest.mark.parametrize("trained", [True, False])
def test_one_time_step_at_a_time_is_one_sample_until_the_state_is_reset(
    tmp_path, told, trained, squeezed
):
    def stored(name, calls):
        net = streaming(squeezed).train(trained)
        seen, optimizer = told(net[1]), torch.optim.SGD(net.parameters(), 0.0)
        with spikewatch.attach(net, dir=tmp_path, run=name, every=1, quiet=True):
            for i in range(2):
                sinabs.reset_states(net)
                with torch.set_grad_enabled(trained):
                    x = torch.rand(3, 8, 6, generator=torch.Generator().manual_seed(i))
                    parts = x.chunk(calls, 1)
                    y = sum(net(p.flatten(0, 1) if squeezed else p).sum() for p in parts)
                if trained:
                    y.backward()
                    optimizer.step()
        tables = {
            "timing": "n_ttfs_pairs, n_ttfs_fired, sum_ttfs_steps, sum_ttfs_length_steps",
            "energy": "n_sops, n_samples, sum_time_steps",
            "spikes": "n_obs, n_neurons, n_spikes",
        }
        with spikewatch.open_store(tmp_path) as store:
            rows = {
                t: store.sql(
                    f"SELECT step, layer, {c} FROM {t} WHERE run = '{name}' ORDER BY step, layer"
                ).rows()
                for t, c in tables.items()
            }
        return rows, seen.starts

    (whole, starts), (streamed, by_step) = stored("whole", 1), stored("streamed", 8)
    assert streamed == whole
    assert sum(row[4] for row in whole["timing"]) > 0  # some fire later than at once
    assert starts == [True, True]
    assert by_step == [True, *[False] * 7] * 2


def test_a_state_that_is_only_detached_goes_on_with_the_sample_of_a_stream(told):
    net = streaming(squeezed=False)
    seen, x = told(net[1]), torch.rand(3, 1, 6)
    for _ in range(3):
        net(x).sum().backward()
        sinabs.zero_grad(net)
    net(torch.rand(2, 1, 6))  # sinabs draws two of the three states for it
    assert seen.starts == [True, False, False, True]


@pytest.mark.parametrize("detaches", [False, True])
def test_a_sequence_given_in_parts_is_one_sample(listen, detaches):
    net = streaming(squeezed=False)
    heard, rows = listen(net), []
    for n_parts in (1, 2):
        sinabs.reset_states(net)
        x, total = torch.rand(3, 8, 6, generator=torch.Generator().manual_seed(1)), 0.0
        for part in x.chunk(n_parts, 1):
            total = total + net(part).sum()
            if detaches:
                sinabs.zero_grad(net)
        total.backward()
        rows.append(heard.flush("1", "timing"))
    assert rows[0] == rows[1]
    assert rows[0]["n_ttfs_fired"] > 0


def test_a_sequence_goes_on_without_a_reset_but_in_evaluations(told):
    net = streaming(squeezed=False)
    seen = told(net[1])
    for n_parts in (1, 2):  # the first as in the tutorials
        parts = [net(x) for x in torch.rand(3, 8, 6).chunk(n_parts, 1)]
        torch.cat(parts, 1).sum().backward()
        sinabs.zero_grad(net)
    with torch.no_grad():
        net(torch.rand(3, 8, 6))
    assert seen.starts == [True, False, False, True]


def test_a_training_that_never_resets_has_a_sample_for_each_sequence(listen):
    net = streaming(squeezed=False)
    heard = listen(net)
    for heard.step in range(3):
        net(torch.rand(3, 8, 6)).sum().backward()
        sinabs.zero_grad(net)
        row = heard.flush("1", "timing")
        assert row["sum_ttfs_length_steps"] == 8 * row["n_ttfs_pairs"]


@pytest.mark.filterwarnings("ignore:SNNAnalyzer is deprecated")
def test_a_neuron_that_fires_twice_in_a_step_makes_two_additions_as_sinabs_counts_them(listen):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 2, 2), layers.IAFSqueeze(batch_size=2), layers.SumPool2d(3),
        nn.Conv2d(2, 3, 2, padding=1), layers.IAFSqueeze(batch_size=2), nn.Flatten(),
        nn.Linear(27, 4),
    )  # fmt: skip
    heard, theirs = listen(net), SNNAnalyzer(net)
    images = torch.randint(256, (2 * 5, 1, 7, 7)).float()
    net(images / 80)
    of_pooled, of_spikes = (heard.tables(name)["energy"] for name in ("3", "6"))
    told = theirs.get_layer_statistics()["parameter"]
    assert of_pooled["n_sops"] == pytest.approx(2 * told["3"]["synops"].item())
    assert of_spikes["n_sops"] == pytest.approx(2 * told["6"]["synops"].item())
    assert of_spikes["n_sops"] > 4 * of_spikes["n_nonzero_inputs"]  # several in a step
    assert of_pooled["n_macs"] == of_spikes["n_macs"] == 0
    net(images)
    assert heard.tables("0")["energy"]["n_sops"] == 0  # whole numbers, and no spikes


def test_the_model_that_a_network_was_converted_from_has_no_layers(listen):
    analog = nn.Sequential(nn.Linear(6, 5), layers.NeuromorphicReLU(), nn.Linear(5, 4), nn.ReLU())
    network = from_model(analog, batch_size=2, input_shape=(6,))
    assert list(listen(nn.Sequential(nn.Identity(), network)).observers) == [
        "1.spiking_model.1", "1.spiking_model.3",
    ]  # fmt: skip
    assert list(listen(analog).observers) == ["1"]


class Gesture(nn.Module):
    """A little convolutional network, as in the sinabs tutorials."""

    def __init__(self):
        super().__init__()
        self.conv, self.iaf = nn.Conv2d(2, 3, 3), layers.IAFSqueeze(batch_size=2, min_v_mem=-1.0)
        self.pool, self.flat = nn.AvgPool2d(2), nn.Flatten()
        self.fc, self.lif = (
            nn.Linear(12, 4),
            layers.LIFSqueeze(tau_mem=5.0, norm_input=False, batch_size=2),
        )

    def forward(self, x):
        return self.lif(self.fc(self.flat(self.pool(self.iaf(self.conv(x))))))


def test_a_training_in_the_tutorials_style_is_counted(listen, told):
    torch.manual_seed(3)
    net = Gesture()
    nn.init.uniform_(net.conv.weight, -0.1, 0.3)
    nn.init.uniform_(net.fc.weight, -0.2, 0.5)
    heard, seen = listen(net), told(net.lif)
    assert list(heard.observers) == ["iaf", "lif"]
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    for _ in range(2):
        optimizer.zero_grad()
        out = net(torch.rand(2 * 5, 2, 6, 6)).unflatten(0, (2, 5))
        nn.functional.cross_entropy(out.sum(1), torch.tensor([0, 3])).backward()
        optimizer.step()
        for neuron in (net.iaf, net.lif):
            neuron.reset_states()
            neuron.zero_grad()
    conv, out = heard.tables("iaf"), heard.tables("lif")
    spikes = torch.cat(seen.spikes)
    assert (conv["spikes"]["n_obs"], conv["spikes"]["n_neurons"]) == (2 * 2 * 5, 3 * 4 * 4)
    assert out["spikes"]["n_obs"] == 20
    assert out["spikes"]["n_spikes"] == spikes.count_nonzero() > 0
    assert out["spikes"]["sum_abs_spike"] == spikes.sum()
    slopes = 2 * torch.exp(-2 * (torch.stack(seen.saved) - 1).abs())  # SingleExponential, θ = 1
    assert out["gradients"]["sum_sg"] == pytest.approx(slopes.sum().item(), rel=1e-5)


@pytest.mark.parametrize(
    ("reset", "name"), [(MembraneSubtract(), "subtract"), (MembraneReset(), "zero")]
)
@pytest.mark.parametrize("recorded", [True, False])
def test_a_reset_by_subtraction_is_undone_and_one_to_a_value_is_not(
    told, dynamics, reset, name, recorded
):
    torch.manual_seed(4)
    neuron = layers.LIF(tau_mem=4.0, spike_threshold=0.5, reset_fn=reset, record_states=recorded)
    seen = told(neuron)
    neuron(6 * torch.rand(2, 5, 3, requires_grad=True))
    (membrane,), (spikes,) = seen.membranes, seen.spikes
    before = torch.stack(seen.saved, 1)
    if not recorded:
        before, spikes = before[:, -1], spikes[:, -1]
    assert spikes.max() > 1  # several in one step
    assert membrane.pre_reset == (name == "subtract")
    expected = before if membrane.pre_reset else before * (spikes == 0)
    torch.testing.assert_close(membrane.potential, expected)
    assert dynamics(neuron).reset == name


def test_parameters_are_the_neurons_own(dynamics):
    plain = layers.LIF(tau_mem=torch.tensor([10.0, 20.0]), spike_threshold=0.5)
    found = dynamics(plain)
    assert found.threshold == 0.5
    torch.testing.assert_close(found.decay, torch.tensor([-0.1, -0.05]).exp())
    torch.testing.assert_close(found.decay, plain.alpha_mem_calculated)
    assert found.surrogate == "SingleExponential(grad_width=0.5, grad_scale=1)"
    assert found.learnable == {"tau_mem": plain.tau_mem}
    trained = layers.LIF(tau_mem=10.0, train_alphas=True)
    assert dynamics(trained).decay == pytest.approx(0.904837, rel=1e-5)
    assert dynamics(trained).learnable == {"alpha_mem": trained.alpha_mem}
    assert dynamics(layers.IAF()).decay is None
    adaptive = layers.ALIF(tau_mem=10.0, tau_adapt=10.0, spike_threshold=0.5)
    assert dynamics(adaptive).threshold == 0.5
    adaptive(5 * torch.rand(2, 3, 4))
    assert dynamics(adaptive).threshold.shape == (2, 4)


def test_a_pulse_decays_as_told(dynamics):
    neuron = layers.LIF(tau_mem=5.0, record_states=True, norm_input=False)
    pulse = torch.tensor([0.5, 0.0, 0.0]).reshape(1, 3, 1)
    neuron(pulse)
    v = neuron.recordings["v_mem"].flatten()
    assert (v[1] / v[0]).item() == pytest.approx(dynamics(neuron).decay.item())
