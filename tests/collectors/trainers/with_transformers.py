"""The training of the tests, by Hugging Face's Trainer."""

import warnings

from torch import nn

from .little_net import BATCH, N_BATCHES, Training, dataset


with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from transformers import Trainer, TrainingArguments

    from spikewatch.collectors.trainers.transformers import SpikewatchCallback


class Classifier(nn.Module):
    """As Trainer wants it: its forward takes the labels and returns the loss."""

    def __init__(self, training):
        super().__init__()
        self.net = training.net
        self._loss = training.loss

    def forward(self, x, labels):
        loss = self._loss(x, labels)
        return {"loss": loss, "logits": x}


class Transformers(Training):
    layers = ("net.lif1", "net.lif2")

    def __init__(self, net, options, *, trainer=None, **more):
        super().__init__(net, options, **more)
        self._module = Classifier(self)
        self.callback = None if options is None else SpikewatchCallback(**options)
        self.settings = {"save_strategy": "no"} | (trainer or {})

    @property
    def model(self):
        return self._module

    @property
    def watch(self):
        return self.callback.watch

    def fit(self, n_steps, **how):
        args = TrainingArguments(
            "out",
            per_device_train_batch_size=BATCH,
            gradient_accumulation_steps=self.accumulate,
            max_steps=n_steps,
            logging_steps=1,
            eval_strategy="steps" if self.validate else "no",
            eval_steps=N_BATCHES,
            learning_rate=1e-2,
            use_cpu=True,
            report_to=[],
            disable_tqdm=True,
            **self.settings,
        )
        samples = [{"x": x, "labels": y} for x, y in dataset()]
        callbacks = [] if self.callback is None else [self.callback]
        data = {"train_dataset": samples, "eval_dataset": samples}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pinned memory without a GPU
            self.trainer = Trainer(self._module, args, callbacks=callbacks, **data)
            self.trainer.train(**how)
