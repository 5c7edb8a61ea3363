"""What Lightning has that the others have not."""

import math

import pytest
import torch
from torch import nn

import spikewatch
from spikewatch.collectors.trainers.lightning import SpikewatchCallback

from .little_net import N_BATCHES, loader, make_net
from .with_lightning import Lightning, lightning


def scalars(asked, name):
    return asked(f"SELECT step, value FROM scalars WHERE name = '{name}' ORDER BY step")


def test_batches_of_the_sanity_check_are_no_figures_of_the_training(asked):
    training = Lightning(make_net(), {"every": 1}, validate=True)
    training.fit(N_BATCHES - 1)  # too few for a validation
    assert asked("SELECT * FROM spikes WHERE phase = 'eval'") == []
    assert scalars(asked, "val_loss") == []


def test_the_mean_of_an_epoch_is_stored_once_for_each(asked):
    training = Lightning(make_net(), {})
    training.fit(2 * N_BATCHES)
    losses = training.losses
    means = [sum(part) / N_BATCHES for part in (losses[:N_BATCHES], losses[N_BATCHES:])]
    got = scalars(asked, "mean_loss")
    assert got == [
        (N_BATCHES - 1, pytest.approx(means[0])),
        (2 * N_BATCHES - 1, pytest.approx(means[1])),
    ]


def test_the_learning_rate_is_the_one_that_the_step_was_made_with(asked):
    training = Lightning(make_net(), {})

    def configure_optimizers():
        optimizer = torch.optim.SGD(training.model.parameters(), 1.0)
        return [optimizer], [
            {"scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5), "interval": "step"}
        ]

    training.model.configure_optimizers = configure_optimizers
    training.fit(4)
    assert scalars(asked, "lr") == [(0, 1.0), (1, 0.5), (2, 0.25), (3, 0.125)]


def test_of_batches_whose_gradients_accumulate_the_last_is_told(asked):
    training = Lightning(make_net(), {}, accumulate=3)
    training.fit(4)
    last = training.losses[2::3]
    assert scalars(asked, "train_loss") == [(i, pytest.approx(x)) for i, x in enumerate(last)]


def test_beside_a_logger_of_the_trainer_everything_is_stored_once(asked):
    logger = lightning.pytorch.loggers.CSVLogger("logs")
    settings = {"logger": logger, "log_every_n_steps": 2}
    training = Lightning(make_net(), {}, validate=True, trainer=settings)
    training.fit(2 * N_BATCHES)
    assert [step for step, _ in scalars(asked, "train_loss")] == list(range(2 * N_BATCHES))
    assert len(scalars(asked, "mean_loss")) == len(scalars(asked, "val_loss")) == 2


class Silent(lightning.pytorch.LightningModule):
    """Calls itself, steps its two optimizers by hand, and logs nothing."""

    def __init__(self, *, by_hand):
        super().__init__()
        self.automatic_optimization = not by_hand
        self.net = make_net()
        self.losses = []

    def forward(self, x):
        return self.net(x)

    def configure_optimizers(self):
        halves = (self.net.fc1, self.net.fc2) if not self.automatic_optimization else (self.net,)
        return [torch.optim.SGD(half.parameters(), 0.1) for half in halves]

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = nn.functional.cross_entropy(self(x), y)
        self.losses.append(loss.item())
        if not self.automatic_optimization:
            self.manual_backward(loss)
            for optimizer in self.optimizers():
                optimizer.step()
                optimizer.zero_grad()
        return {"loss": loss}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("by_hand", [False, True])
def test_the_loss_that_is_returned_is_stored_where_none_is_logged(asked, by_hand):
    module = Silent(by_hand=by_hand)
    settings = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar"), False)
    trainer = lightning.pytorch.Trainer(
        max_epochs=1, accelerator="cpu", callbacks=[SpikewatchCallback(every=1)], **settings
    )
    trainer.fit(module, loader())
    got = scalars(asked, "loss")
    assert got == [(i, pytest.approx(x)) for i, x in enumerate(module.losses)]
    steps = asked("SELECT DISTINCT step FROM spikes ORDER BY step")
    assert steps == [(i,) for i in range(N_BATCHES)]


def test_the_trainer_saves_a_checkpoint_before_a_non_finite_step(tmp_path):
    training = Lightning(
        make_net(),
        {"run": "first", "checkpoint_to": tmp_path / "saved"},
        during=lambda loss, i: loss * math.nan if i == 3 else loss,
    )
    training.fit(N_BATCHES)
    file = tmp_path / "saved" / "first-step-3-non-finite-gradient.ckpt"
    saved = torch.load(file, weights_only=True)
    assert all(x.isfinite().all() for x in saved["state_dict"].values())
    resumed = Lightning(make_net(), None)
    resumed.fit(N_BATCHES, ckpt_path=file)
    assert len(resumed.losses) == N_BATCHES - 3  # the step that was not good is made again
    assert all(p.isfinite().all() for p in resumed.net.parameters())


def test_two_ways_to_save_are_refused():
    with pytest.raises(spikewatch.AttachError, match="Give one"):
        SpikewatchCallback(checkpoint_to="here", on_checkpoint=print)


def test_a_training_that_goes_on_from_a_checkpoint_counts_on_in_a_run_of_its_own(asked, tmp_path):
    training = Lightning(make_net(), {"run": "first", "every": 1})
    training.fit(4)
    file = tmp_path / "last.ckpt"
    training.trainer.save_checkpoint(file)
    Lightning(make_net(), {"run": "first", "every": 1}).fit(7, ckpt_path=file)
    steps = "SELECT list(DISTINCT step ORDER BY step) FROM spikes WHERE run = '{}'"
    assert asked(steps.format("first")) == [([0, 1, 2, 3],)]
    assert asked(steps.format("first-2")) == [([4, 5, 6],)]


def test_nothing_of_ours_is_in_a_checkpoint_of_the_trainer(tmp_path):
    """So it can be loaded where spikewatch is not installed, and with a trainer without us."""
    saved = []
    for options in (None, {}):
        training = Lightning(make_net(), options)
        training.fit(2)
        training.trainer.save_checkpoint(tmp_path / "last.ckpt")
        assert b"spikewatch" not in (tmp_path / "last.ckpt").read_bytes()
        saved.append(torch.load(tmp_path / "last.ckpt", weights_only=True))
    bare, watched = saved
    assert watched.keys() == bare.keys()
    assert watched["callbacks"] == bare["callbacks"] == {}
    assert watched["state_dict"].keys() == bare["state_dict"].keys()
