"""What Ignite has that the others have not."""

import pytest

from .little_net import N_BATCHES, loader, make_net
from .with_ignite import Engine, Events, Ignite, SpikewatchHandler


def fail(loss, i):
    if i == 3:
        raise ZeroDivisionError("out of luck")
    return loss


def test_an_exception_that_the_user_handles_stays_handled(states, asked):
    training = Ignite(make_net(), {"run": "first"}, during=fail)
    handled = []
    training.trainer.add_event_handler(Events.EXCEPTION_RAISED, lambda e: handled.append(e))
    training.fit(N_BATCHES)
    assert [type(e) for e in handled] == [ZeroDivisionError]
    assert states() == [("first", "failed")]
    assert asked("SELECT message FROM events WHERE kind = 'exception'") == [
        ("ZeroDivisionError: out of luck",)
    ]


def test_metrics_of_the_trainer_are_stored_after_each_epoch(asked):
    training = Ignite(make_net(), {})
    training.trainer.run(loader(), max_epochs=2, epoch_length=N_BATCHES)
    losses = training.losses
    means = [sum(part) / N_BATCHES for part in (losses[:N_BATCHES], losses[N_BATCHES:])]
    got = asked("SELECT step, value FROM scalars WHERE name = 'mean_loss' ORDER BY step")
    assert got == [
        (N_BATCHES - 1, pytest.approx(means[0])),
        (2 * N_BATCHES - 1, pytest.approx(means[1])),
    ]


def test_several_figures_that_an_iteration_returns_are_stored_by_their_names(asked):
    net = make_net()

    def update(engine, batch):
        return {"task_loss": net(batch[0]).mean(), "n": 3, "prediction": batch[0], "note": "none"}

    trainer = Engine(update)
    SpikewatchHandler(net).attach(trainer)
    trainer.run(loader(), max_epochs=1)
    assert asked("SELECT DISTINCT name FROM scalars ORDER BY name") == [("n",), ("task_loss",)]


def test_a_training_that_goes_on_counts_its_iterations_on(asked):
    first = Ignite(make_net(), {"run": "first", "every": 1})
    first.fit(4)
    again = Ignite(make_net(), {"run": "first", "every": 1})
    again.trainer.load_state_dict({"iteration": 4, "max_epochs": 2, "epoch_length": 4})
    again.trainer.run(loader())
    steps = "SELECT list(DISTINCT step ORDER BY step) FROM spikes WHERE run = 'first-2'"
    assert asked(steps) == [([4, 5, 6, 7],)]
    assert first.trainer.state_dict().keys() == Ignite(make_net(), None).trainer.state_dict().keys()
