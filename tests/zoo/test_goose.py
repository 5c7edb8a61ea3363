"""The ternary student: its state by hand, its causality, and what reaches the teacher."""

import torch

from spikewatch.zoo import ChannelTernarySpike, load_digits
from spikewatch.zoo.goose import Distillation, Goose, GooseLayer


def test_the_state_forgets_what_a_key_held_before_it_stores_anew():
    torch.manual_seed(0)
    layer, x = GooseLayer(6, ternary=True).double(), torch.randn(1, 4, 6, dtype=torch.float64)
    given = layer(x)
    state, w = torch.zeros(6, 6, dtype=torch.float64), torch.sigmoid(layer.decay)
    for t in range(4):
        r, k, v, a = layer.projections(x[0, t]).chunk(4)
        k, v = layer.key_spike(layer.key_norm(k)), layer.value_spike(layer.value_norm(v))
        kappa = k / k.norm().clamp(min=1e-12)
        state = (
            state @ torch.diag(w)
            - torch.outer(state @ kappa, torch.sigmoid(a) * kappa)
            + torch.outer(v, k)
        )
        by_hand = layer.output(layer.output_norm(state @ r))
        torch.testing.assert_close(given[0, t], by_hand)


def test_keys_and_values_of_the_student_are_ternary_and_of_the_teacher_are_not():
    levels = {}
    for ternary in (True, False):
        torch.manual_seed(0)
        layer = Goose(ternary=ternary).layer
        for name in ("key_spike", "value_spike"):
            module = getattr(layer, name)
            module.register_forward_hook(
                lambda _, __, out, key=(ternary, name): levels.update({key: out.unique().numel()})
            )
        layer(torch.randn(8, 8, 32))
    assert levels[True, "key_spike"] == levels[True, "value_spike"] == 3
    assert min(levels[False, "key_spike"], levels[False, "value_spike"]) > 100


def test_outputs_depend_on_no_later_row_and_on_no_other_sample():
    torch.manual_seed(0)
    layer, x = GooseLayer(16, ternary=True), torch.randn(3, 8, 16)
    other = x.clone()
    other[:, 5:] = 9.0
    other[1:] = -4.0
    torch.testing.assert_close(layer(x)[0, :5], layer(other)[0, :5], rtol=1e-4, atol=1e-5)


def test_every_amplitude_and_threshold_learns_and_the_teacher_does_not():
    torch.manual_seed(0)
    train, _ = load_digits()
    student, teacher = Goose(), Goose(ternary=False).eval().requires_grad_(False)
    training = Distillation(student, torch.optim.Adam(student.parameters()), teacher=teacher)
    before = [p.clone() for p in teacher.parameters()]
    told = training.step(train.images[:64], train.labels[:64])
    assert set(told) == {"loss", "ce", "kd", "feature_loss", "agreement"}
    assert told["loss"] > 0
    spikes = [m for m in student.modules() if isinstance(m, ChannelTernarySpike)]
    assert len(spikes) == 2
    for module in spikes:
        assert (module.amplitude.grad != 0).all()
        assert (module.threshold.grad != 0).all()
    assert all(map(torch.equal, teacher.parameters(), before))
