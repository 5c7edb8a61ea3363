"""What Hugging Face's Trainer has that the others have not."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import spikewatch

from .little_net import make_net
from .with_transformers import SpikewatchCallback, Transformers


def fail(loss, i):
    if i == 3:
        raise ZeroDivisionError("out of luck")
    return loss


def exceptions(asked):
    return asked("SELECT run, message FROM events WHERE kind = 'exception' ORDER BY run")


def test_as_a_context_the_callback_records_an_exception_that_is_caught(states, asked):
    training = Transformers(make_net(), {"run": "first"}, during=fail)
    with pytest.raises(ZeroDivisionError), training.callback:
        training.fit(6)
    assert states() == [("first", "failed")]
    assert exceptions(asked) == [("first", "ZeroDivisionError: out of luck")]


@pytest.mark.parametrize("same_callback", [True, False])
def test_a_training_after_one_that_failed_is_a_run_of_its_own(states, asked, same_callback):
    """As in a notebook, where a cell fails and is run again."""
    training = Transformers(make_net(), {"run": "first", "every": 1}, during=fail)
    with pytest.raises(ZeroDivisionError):
        training.fit(6)
    training._during = lambda loss, _: loss
    if not same_callback:
        training.callback = SpikewatchCallback(run="first", every=1)
    training.fit(6)
    assert states() == [("first", "failed"), ("first-2", "finished")]
    ((_, message),) = exceptions(asked)
    assert "did not come to its end" in message
    assert asked("SELECT count(DISTINCT step) FROM spikes WHERE run = 'first-2'") == [(6,)]


@pytest.mark.slow
def test_an_exception_that_ends_the_program_is_recorded(states, asked):
    script = """
        from tests.collectors.trainers.test_transformers import fail
        from tests.collectors.trainers.little_net import make_net
        from tests.collectors.trainers.with_transformers import Transformers
        Transformers(make_net(), {"run": "first"}, during=fail).fit(6)
    """
    root = str(Path(__file__).parents[3])
    script = f"import sys\nsys.path.insert(0, {root!r})\n" + textwrap.dedent(script)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "ZeroDivisionError: out of luck" in done.stderr
    assert states() == [("first", "failed")]
    assert exceptions(asked) == [("first", "ZeroDivisionError: out of luck")]


def test_a_training_that_goes_on_from_a_checkpoint_counts_on_in_a_run_of_its_own(asked):
    saving = {"save_strategy": "steps", "save_steps": 4}
    Transformers(make_net(), {"run": "first", "every": 1}, trainer=saving).fit(4)
    training = Transformers(make_net(), {"run": "first", "every": 1}, trainer=saving)
    training.fit(7, resume_from_checkpoint="out/checkpoint-4")
    steps = "SELECT list(DISTINCT step ORDER BY step) FROM spikes WHERE run = '{}'"
    assert asked(steps.format("first")) == [([0, 1, 2, 3],)]
    assert asked(steps.format("first-2")) == [([4, 5, 6],)]
    files = [file for file in Path("out").rglob("*") if file.is_file()]
    assert len(files) > 4
    assert [file for file in files if b"spikewatch" in file.read_bytes()] == []


def test_an_evaluation_after_the_training_is_none_of_it(states, asked):
    training = Transformers(make_net(), {"run": "first"})
    training.fit(2)
    assert training.trainer.evaluate()["eval_loss"] > 0
    assert states() == [("first", "finished")]
    assert asked("SELECT * FROM scalars WHERE name = 'eval_loss'") == []
    assert spikewatch.watch_of(training.model) is None
