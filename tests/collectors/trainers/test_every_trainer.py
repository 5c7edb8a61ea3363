"""What holds for each trainer that has an integration, seen on the real one."""

import logging
import math
import signal

import pytest
import torch

import spikewatch

from .little_net import N_BATCHES, RAISES, STOPS, make_net
from .with_accelerate import Accelerate
from .with_ignite import Ignite
from .with_lightning import Lightning, PytorchLightning
from .with_transformers import Transformers


pytestmark = pytest.mark.parametrize(
    "trainer", [Lightning, PytorchLightning, Transformers, Ignite, Accelerate]
)

LOSS = {Transformers: "loss", Ignite: "loss"}
VALIDATED = {Transformers: "eval_loss"}


def train(trainer, *, n_steps=N_BATCHES, options=None, **how):
    training = trainer(make_net(), {"run": "first", "every": 1} | (options or {}), **how)
    training.fit(n_steps)
    return training


def steps(asked, phase="train"):
    rows = asked(f"SELECT DISTINCT step FROM spikes WHERE phase = '{phase}' ORDER BY step")
    return [step for (step,) in rows]


def test_one_line_watches_each_step_of_the_training_and_ends_with_it(trainer, asked, states):
    training = train(trainer)
    assert states() == [("first", "finished")]
    assert steps(asked) == list(range(N_BATCHES))
    layers = asked("SELECT DISTINCT layer FROM spikes ORDER BY layer")
    assert [layer for (layer,) in layers] == list(training.layers)
    assert spikewatch.watch_of(training.model) is None
    assert asked("SELECT message FROM events WHERE kind = 'fault'") == []


def test_what_the_trainer_logs_is_stored_once_at_the_step_that_it_is_of(trainer, asked):
    training = train(trainer)
    name = LOSS.get(trainer, "train_loss")
    got = asked(f"SELECT step, phase, value FROM scalars WHERE name = '{name}' ORDER BY step")
    about = [pytest.approx(x, abs=1e-4) for x in training.losses]  # some trainers round
    assert got == [(step, "train", loss) for step, loss in enumerate(about)]


def test_a_watched_training_is_the_same_training(trainer):
    trained = []
    for options in (None, {"every": 1}):
        training = trainer(make_net(), options)
        torch.manual_seed(1)
        training.fit(N_BATCHES)
        trained.append((training.losses, *training.net.parameters()))
    (bare_losses, *bare), (losses, *watched) = trained
    assert losses == bare_losses
    assert all(torch.equal(a, b) for a, b in zip(bare, watched, strict=True))


def test_batches_whose_gradients_accumulate_are_one_step(trainer, asked):
    train(trainer, n_steps=4, accumulate=3)
    assert steps(asked) == [0, 1, 2, 3]
    observed = asked("SELECT DISTINCT n_obs FROM spikes")
    assert observed == [(3 * 16 * 3,)]  # batches, images, time steps


def test_validation_is_apart_and_makes_no_step(trainer, asked):
    train(trainer, n_steps=2 * N_BATCHES, validate=True)
    assert steps(asked) == list(range(2 * N_BATCHES))
    after = [N_BATCHES, 2 * N_BATCHES]
    assert steps(asked, "eval") == after
    name = VALIDATED.get(trainer, "val_loss")
    rows = asked(f"SELECT step, phase FROM scalars WHERE name = '{name}' ORDER BY step")
    assert rows == [(step, "eval") for step in after]
    rows = asked(f"SELECT count(*) FROM scalars WHERE name = '{LOSS.get(trainer, 'train_loss')}'")
    assert rows == [(2 * N_BATCHES,)]


def test_a_rule_that_asks_for_it_stops_the_training(trainer, states):
    training = train(trainer, n_steps=3000, options={"rules": [STOPS]})
    assert N_BATCHES < len(training.losses) < 3000
    assert states() == [("first", "finished")]


def test_a_rule_that_raises_ends_the_training_with_its_exception(trainer, states, asked):
    with pytest.raises(spikewatch.AlertRaised, match="raises firing"):
        train(trainer, n_steps=3000, options={"rules": [RAISES]})
    check_the_exception_is_recorded(trainer, "AlertRaised", states, asked)


def test_an_exception_reaches_the_user_and_the_record(trainer, states, asked):
    def fail(loss, i):
        if i == 3:
            raise ZeroDivisionError("out of luck")
        return loss

    with pytest.raises(ZeroDivisionError):
        train(trainer, during=fail)
    check_the_exception_is_recorded(trainer, "ZeroDivisionError: out of luck", states, asked)
    assert steps(asked) == [0, 1, 2, 3]  # of the last one there is what was seen


def test_ctrl_c_is_recorded(trainer, states, asked):
    def interrupt(loss, i):
        if i == 3:
            signal.raise_signal(signal.SIGINT)
        return loss

    # Who runs the tests in the background of a shell has it ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            train(trainer, during=interrupt)
    finally:
        signal.signal(signal.SIGINT, before)  # Lightning ignores it from then on
    check_the_exception_is_recorded(trainer, "KeyboardInterrupt", states, asked)


def check_the_exception_is_recorded(trainer, message, states, asked):
    if trainer is Transformers:  # whose trainer tells nobody: see test_transformers.py
        (watch,) = spikewatch.watch.open_watches()
        watch.close()
        return
    assert states() == [("first", "failed")]
    ((got,),) = asked("SELECT message FROM events WHERE kind = 'exception'")
    assert got.startswith(message)


def test_a_second_training_is_a_second_run(trainer, states, asked):
    training = train(trainer)
    training.fit(N_BATCHES)
    assert states() == [("first", "finished"), ("first-2", "finished")]
    assert asked("SELECT count(*) FROM spikes WHERE run = 'first-2'") == [(2 * N_BATCHES,)]


def test_a_watch_of_the_users_own_is_used_and_left_open(trainer, states, asked, caplog):
    training = trainer(make_net(), {"run": "mine", "every": 1})
    with spikewatch.attach(training.model, run="theirs", every=1, quiet=True) as watch:
        training.fit(N_BATCHES)
        assert watch.step == N_BATCHES
        watch.log(after=1.0)
    assert states() == [("theirs", "finished")]
    losses = f"SELECT count(*) FROM scalars WHERE name = '{LOSS.get(trainer, 'train_loss')}'"
    assert asked(losses) == [(N_BATCHES,)]
    assert asked("SELECT step FROM scalars WHERE name = 'after'") == [(N_BATCHES - 1,)]
    told = [r.message for r in caplog.records if r.levelno >= logging.WARNING]
    assert sum("watched already, by run 'theirs'" in message for message in told) == 1


def test_the_checkpoint_is_called_for_while_the_weights_are_good(trainer):
    saved = []
    net = make_net()

    def save(alert):
        saved.append((alert["step"], all(p.isfinite().all() for p in net.parameters())))

    training = trainer(
        net,
        {"on_checkpoint": save},
        during=lambda loss, i: loss * math.nan if i == 3 else loss,
    )
    training.fit(N_BATCHES)
    assert saved[0] == (3, True)
    assert not all(p.isfinite().all() for p in net.parameters())


def test_an_option_that_there_is_not_is_refused_and_those_there_are_named(trainer):
    with pytest.raises(spikewatch.AttachError, match=r"no option 'evry'. It has: dir, every, "):
        train(trainer, options={"evry": 1})
