"""The training of the tests, by Lightning."""

import importlib
import warnings

from .little_net import N_BATCHES, Training, loader, optimizer_of


with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import lightning.pytorch

    from spikewatch.collectors.trainers.lightning import SpikewatchCallback


class Lightning(Training):
    package = lightning.pytorch
    layers = ("net.lif1", "net.lif2")

    def __init__(self, net, options, *, trainer=None, **more):
        super().__init__(net, options, **more)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._module = make_module(self)
        self.callback = None if options is None else SpikewatchCallback(**options)
        settings = dict.fromkeys(
            ("enable_progress_bar", "enable_model_summary", "logger", "enable_checkpointing"), False
        )
        self.settings = settings | (trainer or {})

    @property
    def model(self):
        return self._module

    @property
    def watch(self):
        return self.callback.watch

    def fit(self, n_steps, **how):
        self.trainer = self.package.Trainer(
            callbacks=[] if self.callback is None else [self.callback],
            accelerator="cpu",
            max_steps=n_steps,
            max_epochs=-1,
            accumulate_grad_batches=self.accumulate,
            **self.settings,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of few workers, and of logging rarely
            self.trainer.fit(self._module, loader(), loader() if self.validate else None, **how)


class PytorchLightning(Lightning):
    @property
    def package(self):
        return importlib.import_module("pytorch_lightning")


def make_module(training):
    class Digits(training.package.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = training.net

        def configure_optimizers(self):
            return optimizer_of(self)

        def training_step(self, batch, batch_idx):
            loss = training.loss(*batch)
            self.log("train_loss", loss)
            self.log("mean_loss", loss, on_epoch=True, on_step=False)
            return loss

        def validation_step(self, batch, batch_idx):
            self.log("val_loss", training.loss(*batch))

    assert len(loader()) == N_BATCHES
    return Digits()
