"""The code that the README shows for each trainer."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from .little_net import dataset, loader, make_net, optimizer_of
from .with_accelerate import Accelerator
from .with_ignite import Ignite
from .with_lightning import Lightning, lightning
from .with_transformers import Trainer, TrainingArguments, Transformers


README = (Path(__file__).parents[3] / "README.md").read_text("utf-8")
SECTION = README.partition("\n## In a trainer\n")[2].partition("\n## ")[0]
SNIPPETS = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)


def for_lightning():
    module = Lightning(make_net(), None).model
    return {"Trainer": lightning.pytorch.Trainer, "module": module, "loader": loader()}


def for_transformers():
    Path("rules.toml").write_text('mute = ["nearly-binary"]\n', "utf-8")
    samples = [{"x": x, "labels": y} for x, y in dataset()]
    arguments = TrainingArguments("out", use_cpu=True, report_to=[], max_steps=3)
    model = Transformers(make_net(), None).model
    return {"Trainer": Trainer, "model": model, "arguments": arguments, "samples": samples}


def for_ignite():
    training = Ignite(make_net(), None)
    names = {"trainer": training.trainer, "evaluator": training.evaluator}
    return names | {"model": training.net, "loader": loader()}


def for_accelerate():
    accelerator, model = Accelerator(cpu=True), make_net()
    names = {"accelerator": accelerator, "model": model, "loader": loader()}
    names["optimizer"] = optimizer_of(model)

    def train_step(batch):
        x, y = batch
        loss = nn.functional.cross_entropy(names["model"](x), y)
        accelerator.backward(loss)
        names["optimizer"].step()
        names["optimizer"].zero_grad()
        return loss

    return names | {"train_step": train_step}


NAMES = {f.__name__.removeprefix("for_"): f for f in (
    for_lightning, for_transformers, for_ignite, for_accelerate
)}  # fmt: skip


def test_there_is_one_for_each():
    assert len(SNIPPETS) == len(NAMES)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("snippet", SNIPPETS)
def test_it_runs(snippet, states, asked):
    name = re.search(r"trainers\.(\w+)", snippet)[1]
    torch.manual_seed(0)
    exec(snippet, NAMES[name]())
    assert states() == [(name, "finished")]
    assert asked("SELECT count(DISTINCT step) > 0 FROM spikes") == [(True,)]
