"""`Trainer(callbacks=[SpikewatchCallback(…)])`, of both packages."""

import warnings

import pytest
import torch
from torch import nn

from .conftest import Snn, loader


with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import lightning.pytorch
    import pytorch_lightning

    from spikewatch.collectors.trainers.lightning import SpikewatchCallback

pytestmark = pytest.mark.filterwarnings("ignore")


def make_module(package=lightning.pytorch, **attributes):
    class Digits(package.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = Snn()
            self.returned = []

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), 1e-2)

        def loss(self, batch):
            x, y = batch
            return nn.functional.cross_entropy(self.net(x), y)

        def training_step(self, batch, batch_idx):
            loss = self.loss(batch)
            self.returned.append(loss.item())
            self.log("train_loss", loss)
            self.log("mean_loss", loss, on_epoch=True, on_step=False)
            return loss

        def validation_step(self, batch, batch_idx):
            self.log("val_loss", self.loss(batch))

    for name, value in attributes.items():
        setattr(Digits, name, value)
    return Digits()


def make_trainer(callback, package=lightning.pytorch, **options):
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    quiet |= {"enable_checkpointing": False, "max_epochs": 1, "accelerator": "cpu"}
    return package.Trainer(callbacks=[callback], **quiet | options)


@pytest.mark.parametrize("package", [lightning.pytorch, pytorch_lightning])
def test_one_line_watches_the_whole_training(package, asked, states):
    module = make_module(package)
    trainer = make_trainer(SpikewatchCallback(run="first", every=1), package)
    trainer.fit(module, loader(), loader(32))
    assert states() == [("first", "finished")]
    steps = asked("SELECT DISTINCT step FROM spikes WHERE phase = 'train' ORDER BY step")
    assert [s for (s,) in steps] == list(range(12)) == list(range(trainer.global_step))
    assert asked("SELECT DISTINCT layer FROM spikes ORDER BY 1") == [("net.lif1",), ("net.lif2",)]
    got = asked("SELECT step, value FROM scalars WHERE name = 'train_loss' ORDER BY step")
    assert got == [(i, pytest.approx(x)) for i, x in enumerate(module.returned)]
    assert asked("SELECT DISTINCT value FROM scalars WHERE name = 'lr'") == [(1e-2,)]
    assert asked("SELECT phase FROM scalars WHERE name = 'val_loss'") == [("eval",)]
    mean = sum(module.returned) / 12
    got = asked("SELECT phase, value FROM scalars WHERE name = 'mean_loss'")
    assert got == [("train", pytest.approx(mean))]
