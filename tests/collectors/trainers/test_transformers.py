"""`Trainer(model, args, callbacks=[SpikewatchCallback(…)])` of Hugging Face."""

import warnings

import pytest
from torch import nn

from .conftest import Snn, digits


with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from transformers import Trainer, TrainingArguments

    from spikewatch.collectors.trainers.transformers import SpikewatchCallback

pytestmark = pytest.mark.filterwarnings("ignore")


class Classifier(nn.Module):
    """As Trainer wants it: its forward takes the labels and returns the loss."""

    def __init__(self):
        super().__init__()
        self.net = Snn()
        self.returned = []

    def forward(self, x, labels):
        logits = self.net(x)
        loss = nn.functional.cross_entropy(logits, labels)
        if self.training:
            self.returned.append(loss.item())
        return {"loss": loss, "logits": logits}


def samples(n=192):
    return [{"x": a, "labels": b} for a, b in zip(*digits(n), strict=True)]


def make_trainer(callback, model=None, n=192, **options):
    options = {"max_steps": 12, "logging_steps": 1, "save_strategy": "no"} | options
    args = TrainingArguments(
        "out", per_device_train_batch_size=16, use_cpu=True, report_to=[], disable_tqdm=True,
        learning_rate=1e-2, **options,
    )  # fmt: skip
    model = model or Classifier()
    data = {"train_dataset": samples(n), "eval_dataset": samples(32)}
    return Trainer(model, args, callbacks=[callback], **data)


def test_one_line_watches_the_whole_training(asked, states):
    trainer = make_trainer(SpikewatchCallback(run="first", every=1))
    trainer.train()
    assert states() == [("first", "finished")]
    steps = asked("SELECT DISTINCT step FROM spikes WHERE phase = 'train' ORDER BY step")
    assert [s for (s,) in steps] == list(range(12)) == list(range(trainer.state.global_step))
    assert asked("SELECT DISTINCT layer FROM spikes ORDER BY 1") == [("net.lif1",), ("net.lif2",)]
    got = asked("SELECT step, value FROM scalars WHERE name = 'loss' ORDER BY step")
    expected = [(i, pytest.approx(x, abs=1e-4)) for i, x in enumerate(trainer.model.returned)]
    assert got == expected
    assert len(asked("SELECT value FROM scalars WHERE name = 'learning_rate'")) == 12
