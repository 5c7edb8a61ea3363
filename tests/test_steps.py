"""A step is an optimizer step; without an optimizer, a forward pass of the root."""

import pytest
import torch
from torch import nn
from torch.optim.optimizer import _global_optimizer_post_hooks

from spikewatch.steps import StepClock


class Root:
    n_free = 0
    rests = False

    def wake(self):
        """It is called always."""


class Counting:
    armed = False  # as where steps are not observed

    def __init__(self, model, *, others=()):
        self.ended = 0
        self.blind = 0
        self.n_asked = 0
        self.root = Root()
        self.clock = StepClock(model, self._end, self._see_nothing, self.root, others=others)
        self.model = model

    def _end(self):
        self.ended += 1
        if self.armed:
            self.clock.arm()

    def _see_nothing(self):
        self.blind += 1

    def forward(self):
        self.see()
        return self.model(torch.ones(1, 2)).sum()

    def see(self):
        if self.root.n_free and torch.is_grad_enabled():
            self.root.n_free -= 1
        else:
            self.n_asked += 1
            self.clock.before_forward(training=torch.is_grad_enabled())
            self.clock.see_forward()


@pytest.fixture(params=[False, True], ids=["asked", "armed"], autouse=True)
def _armed(request, monkeypatch):
    monkeypatch.setattr(Counting, "armed", request.param)


def test_forward_passes_of_a_step_like_those_before_are_only_counted():
    model = nn.Linear(2, 1)
    counting = Counting(model)
    counting.armed = True
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for n_forwards in (4, 4, 3, 4, 6, 6):
        sum(counting.forward() for _ in range(n_forwards)).backward()
        assert counting.clock.fresh
        optimizer.step()
        assert not counting.clock.fresh
    counting.clock.stop()
    assert counting.ended == 6
    assert counting.n_asked == 4 + 2  # in the first step, and those that were more than before


def test_gradient_accumulation_is_one_step():
    model = nn.Linear(2, 1)
    counting = Counting(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(3):
        for _ in range(4):
            counting.forward().backward()
        optimizer.step()
    counting.clock.stop()
    assert counting.ended == 3


@pytest.mark.parametrize("n_calls", [1, 25], ids=["whole sequence", "loop over time"])
def test_the_forward_passes_of_an_optimizer_s_closure_are_of_one_step(n_calls):
    model = nn.Linear(2, 1)
    counting, ran, ended = Counting(model), [], []
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=30, tolerance_change=0)

    def closure():
        ran.append(n_calls)
        optimizer.zero_grad()
        loss = (sum(counting.forward() for _ in range(n_calls)) - 3) ** 2
        loss.backward()
        return loss

    for _ in range(3):
        optimizer.step(closure)
        ended.append(counting.ended)
        ran.append(0)
    counting.clock.stop()
    assert counting.clock.usual_forwards == sum(ran[: ran.index(0)]) > n_calls
    assert ended == [1, 2, 3]


def test_weights_that_change_untold_end_a_step_though_there_is_an_optimizer():
    """But for the first time: a step may be two passes, with other weights in the second one."""
    model = nn.Linear(2, 1)
    counting, ended = Counting(model), []
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(4):
        for _ in range(2):
            counting.forward().backward()
        with torch.no_grad():
            model.weight.sub_(0.1)
        ended.append(counting.ended)
    counting.clock.stop()
    assert ended == [0, 0, 1, 2]
    del optimizer


@pytest.mark.parametrize("n_passes", [1, 2], ids=["whole", "accumulated"])
def test_two_passes_between_which_weights_move_are_one_step_from_the_first_one_on(n_passes):
    """SAM, as it is mostly written: its two parts are no `step`, and their base optimizer's is."""
    model = nn.Linear(2, 1)
    counting, ended = Counting(model), []
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(4):
        for _ in range(n_passes):
            counting.forward().backward()
        with torch.no_grad():
            model.weight.add_(0.1)
        for _ in range(n_passes):
            counting.forward().backward()
        with torch.no_grad():
            model.weight.sub_(0.1)
        optimizer.step()
        ended.append(counting.ended)
    counting.clock.stop()
    assert ended == [1, 2, 3, 4]


def test_an_optimizer_that_steps_twice_after_a_backward_pass_makes_two_steps():
    model = nn.Linear(2, 1)
    counting, repeats = Counting(model), []
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    for _ in range(3):
        counting.forward().backward()
        for _ in range(2):
            optimizer.step()
            repeats.append(counting.clock.repeats)
    counting.clock.stop()
    assert (counting.ended, counting.blind) == (6, 0)
    assert repeats == [False, True] * 3


def test_two_optimizers_that_step_twice_after_a_backward_pass_make_two_steps():
    model = nn.Linear(2, 1)
    counting = Counting(model)
    optimizers = [torch.optim.SGD([p], 0.1) for p in model.parameters()]
    for _ in range(3):
        counting.forward().backward()
        for optimizer in optimizers * 2:
            optimizer.step()
    counting.clock.stop()
    assert (counting.ended, counting.blind) == (6, 0)


def test_a_loop_over_time_that_calls_the_root_is_one_step():
    model = nn.Linear(2, 1)
    counting = Counting(model)
    optimizer = torch.optim.Adam(model.parameters())
    for _ in range(2):
        sum(counting.forward() for _ in range(25)).backward()
        optimizer.step()
    counting.clock.stop()
    assert counting.ended == 2


def test_without_an_optimizer_each_forward_of_the_root_is_a_step():
    counting = Counting(nn.Linear(2, 1))
    for _ in range(5):
        counting.forward()
    counting.clock.stop()
    assert counting.ended == 4  # the fifth is still open


def test_evaluations_before_there_is_an_optimizer_end_no_step_and_leave_the_first_one_whole():
    model = nn.Linear(2, 1)
    counting = Counting(model)
    with torch.no_grad():
        for _ in range(50):
            counting.forward()
    assert counting.ended == 0
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(3):
        sum(counting.forward() for _ in range(6)).backward()
        optimizer.step()
    counting.clock.stop()
    assert counting.ended == 3


def test_evaluations_between_steps_that_are_made_by_hand_are_no_steps():
    model = nn.Linear(2, 1)
    counting = Counting(model)
    for _ in range(3):
        counting.forward().backward()
        with torch.no_grad():
            model.weight -= model.weight.grad
            for _ in range(5):
                counting.forward()
    counting.clock.stop()
    assert counting.ended == 3


def test_the_optimizer_of_another_model_ends_no_step():
    counting, other = Counting(nn.Linear(2, 1)), nn.Linear(2, 1)
    optimizer = torch.optim.SGD(other.parameters(), 0.1)
    counting.forward()
    other(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    counting.clock.stop()
    assert counting.ended == 0


def test_two_optimizers_of_one_model_end_one_step():
    model = nn.Linear(2, 1)
    counting = Counting(model)
    optimizers = [torch.optim.SGD([p], 0.1) for p in model.parameters()]
    counting.forward().backward()
    for optimizer in optimizers:
        optimizer.step()
    counting.clock.stop()
    assert (counting.ended, counting.blind) == (1, 0)


def test_a_step_ends_when_the_optimizers_of_latent_weights_have_stepped_too():
    model, latent = nn.Linear(2, 1), [nn.Parameter(torch.ones(2)) for _ in range(2)]
    others = [torch.optim.SGD([p], 0.1) for p in latent]
    counting = Counting(model, others=others)
    optimizer, ended = torch.optim.SGD(model.parameters(), 0.1), []
    for order in ([optimizer, *others], [*others, optimizer]):
        counting.forward().backward()
        for each in order:
            each.step()
            ended.append(counting.ended)
    counting.clock.stop()
    assert ended == [0, 0, 1, 1, 1, 2]
    assert counting.blind == 0


def test_a_step_in_which_they_do_not_ends_before_the_next_forward_pass():
    model, latent = nn.Linear(2, 1), nn.Parameter(torch.ones(2))
    counting = Counting(model, others=[torch.optim.SGD([latent], 0.1)])
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for n in range(3):
        counting.forward().backward()
        assert counting.ended == n
        optimizer.step()
    counting.clock.see_forward()  # of a part of the model, where the root is not called
    counting.clock.stop()
    assert counting.ended == 3


def test_an_optimizer_that_steps_without_a_forward_pass_is_noticed():
    model = nn.Linear(2, 1)
    counting = Counting(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(3):
        model.forward(torch.ones(1, 2)).sum().backward()
        optimizer.step()
    counting.clock.stop()
    assert counting.blind == 2


def test_the_inner_and_the_outer_forward_pass_of_meta_learning_are_one_step():
    model = nn.Linear(2, 1)
    counting = Counting(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(4):
        weights = dict(model.named_parameters())
        inner = torch.autograd.grad(counting.forward(), list(weights.values()))
        fast = {k: w - 0.1 * g for (k, w), g in zip(weights.items(), inner, strict=True)}
        handle = model.register_forward_pre_hook(lambda *_: counting.see())
        torch.func.functional_call(model, fast, (torch.ones(1, 2),)).sum().backward()
        handle.remove()
        optimizer.step()
    counting.clock.stop()
    assert counting.ended == 4


def test_steps_that_loss_scaling_skips_end_after_a_while():
    model = nn.Linear(2, 1)
    counting = Counting(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(2):  # two forward passes make a step
        sum(counting.forward() for _ in range(2)).backward()
        optimizer.step()
    for _ in range(8 * 2):
        counting.forward().backward()
    assert counting.ended == 2
    for _ in range(16):
        counting.forward().backward()
    counting.clock.stop()
    assert counting.ended == 3


def test_forward_passes_of_an_evaluation_are_no_skipped_step():
    model = nn.Linear(2, 1)
    counting = Counting(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    counting.forward().backward()
    optimizer.step()
    with torch.no_grad():
        for _ in range(50):
            counting.forward()
    counting.clock.stop()
    assert counting.ended == 1


def test_models_may_come_and_go_while_a_step_of_another_ends():
    models = [nn.Linear(2, 1) for _ in range(3)]
    first, second = Counting(models[0]), Counting(models[1])
    later = []

    def end():
        first.ended += 1
        second.clock.stop()
        later.append(Counting(models[2]))

    first.clock._ended = end
    optimizer = torch.optim.SGD(models[0].parameters(), 0.1)
    first.forward().backward()
    optimizer.step()
    assert first.ended == 1
    for counting in (first, *later):
        counting.clock.stop()
    assert not _global_optimizer_post_hooks
