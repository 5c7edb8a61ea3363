"""A student beside its teacher: compared where both saw the same batch, and never run for it."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings, strategies as st
from scipy.special import log_softmax
from torch import nn

import spikewatch
from spikewatch.collectors.teacher import _aligned, _distance, _logits
from spikewatch.errors import AttachError
from spikewatch.zoo.distillation import agreement, distillation_loss
from spikewatch.zoo.ternary_linear import TernaryLinear


class Counted(nn.Linear):
    """A teacher that counts how often it is run."""

    n_runs = 0

    def forward(self, x):
        self.n_runs += 1
        return super().forward(x), x


def student_and_teacher():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 30), nn.ReLU(), TernaryLinear(30, 5)), Counted(12, 5)


def rows_of(folder):
    with spikewatch.open_store(folder) as store:
        return store.sql("FROM distillation ORDER BY step").rows(named=True)


@pytest.mark.parametrize("first", ["student", "teacher"])
def test_the_gap_is_that_of_the_loss_and_the_teacher_runs_once(tmp_path, first):
    net, teacher = student_and_teacher()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    losses, agreed = [], []
    with spikewatch.attach(net, dir=tmp_path, every=1, quiet=True, teacher=teacher):
        for _ in range(3):
            x = torch.randn(16, 12)
            if first == "teacher":
                wanted = teacher(x)[0].detach()
                scores = net(x)
            else:
                scores = net(x)
                with torch.no_grad():
                    wanted = teacher(x)[0]
            loss = distillation_loss(scores, wanted, temperature=2.0)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            agreed.append(agreement(scores, wanted).item())
    assert teacher.n_runs == 3
    rows = rows_of(tmp_path)
    assert [r["kd_gap"] for r in rows] == pytest.approx(losses, rel=1e-5)
    assert [r["kd_agreement_frac"] for r in rows] == pytest.approx(agreed)
    assert {(r["layer"], r["phase"], r["n_compared"]) for r in rows} == {("teacher", "train", 16)}
    assert not teacher._forward_hooks


@pytest.mark.parametrize("first", ["student", "teacher"])
def test_the_gap_goes_on_to_be_told_whoever_is_asked_first(tmp_path, first):
    net, teacher = student_and_teacher()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with spikewatch.attach(net, dir=tmp_path, every=5, quiet=True, teacher=teacher):
        for _ in range(100):
            x = torch.randn(16, 12)
            if first == "teacher":
                teacher(x)
            loss = net(x).square().mean()
            if first == "student":
                teacher(x)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    steps = [row["step"] for row in rows_of(tmp_path)]
    assert (steps[:3], steps[-1] > 60) == ([0, 5, 10], True)
    assert not net._forward_hooks
    assert not teacher._forward_hooks


@pytest.mark.parametrize("first", ["student", "teacher"])
def test_of_a_student_that_a_loop_calls_at_each_time_step_the_mean_counts(tmp_path, first):
    net, teacher = student_and_teacher()
    net = nn.Sequential(nn.Dropout(0.5), net)  # so that no two time steps are alike
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    gaps = []
    with spikewatch.attach(net, dir=tmp_path, every=1, quiet=True, teacher=teacher):
        for _ in range(3):
            x, scores = torch.randn(16, 12), []
            for turn in (first, "teacher" if first == "student" else "student"):
                if turn == "teacher":
                    wanted = teacher(x)[0].detach()
                else:
                    scores = [net(x) for _ in range(4)]
            loss = distillation_loss(sum(scores) / 4, wanted, temperature=2.0)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            gaps.append(loss.item())
    rows = rows_of(tmp_path)
    assert [r["kd_gap"] for r in rows] == pytest.approx(gaps, rel=1e-5)
    assert {r["n_compared"] for r in rows} == {16}


def test_other_batches_are_not_compared(tmp_path):
    net, teacher = student_and_teacher()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with spikewatch.attach(net, dir=tmp_path, every=1, quiet=True, teacher=teacher):
        for _ in range(2):
            teacher(torch.randn(16, 12))
            net(torch.randn(16, 12)).sum().backward()
            optimizer.step()
    assert rows_of(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"teacher": 3}, "a int"),
        ({"teacher": "self"}, "the model itself"),
        ({"teacher": nn.Linear(2, 2), "teacher_temperature": 0}, "τ > 0"),
    ],
)
def test_a_wrong_teacher_is_told_at_once(tmp_path, arguments, message):
    net, _ = student_and_teacher()
    if arguments["teacher"] == "self":
        arguments = {"teacher": net}
    with pytest.raises(AttachError, match=message):
        spikewatch.attach(net, dir=tmp_path, quiet=True, **arguments)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 20), st.integers(2, 9), st.floats(0.5, 8))
def test_scipy_agrees_and_batches_add_up(seed, n, classes, temperature):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (torch.randn(2 * n, classes, generator=generator) for _ in range(2))
    whole = _distance(student, teacher, temperature=temperature)
    halves = [
        _distance(student[s], teacher[s], temperature=temperature)
        for s in (slice(n), slice(n, None))
    ]
    assert torch.allclose(sum(halves), whole, rtol=1e-4, atol=1e-5)
    p, q = (log_softmax(x.double().numpy() / temperature, -1) for x in (teacher, student))
    expected = temperature**2 * ((p - q) * torch.tensor(p).exp().numpy()).sum()
    assert whole[1].item() == pytest.approx(expected, rel=1e-3, abs=1e-4)
    assert whole[1] >= -1e-5
    assert 0 <= whole[2] <= whole[0] == 2 * n


def test_a_student_with_time_steps_is_averaged_over_them():
    teacher = torch.randn(3, 5)
    student, same = _aligned(torch.stack([teacher + 1, teacher - 1]), teacher)
    assert torch.allclose(student, teacher)
    assert torch.equal(same, teacher)
    assert _aligned(torch.randn(3, 4), teacher) == (None, None)


def test_scores_are_found_in_what_models_return():
    scores = torch.randn(3, 5)
    for output in (scores, (scores, None), {"logits": scores}, SimpleNamespace(logits=scores)):
        assert _logits(output) is scores
    assert _logits(torch.ones(3, dtype=torch.int64)) is None
    assert _logits({"hidden": scores}) is None
