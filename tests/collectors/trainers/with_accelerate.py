"""The training of the tests, by Accelerate."""

import contextlib
import itertools
import warnings

import torch

from .little_net import N_BATCHES, Training, loader, optimizer_of


with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from accelerate import Accelerator
    from accelerate.state import GradientState

    from spikewatch.collectors.trainers.accelerate import attach


class Accelerate(Training):
    watch = None

    def fit(self, n_steps):
        GradientState._reset_state()  # of the process: another trainer's loader may be in it
        accelerator = Accelerator(cpu=True, gradient_accumulation_steps=self.accumulate)
        model, optimizer = accelerator.prepare(self.net, optimizer_of(self.net))
        context = contextlib.nullcontext()
        if self.options is not None:
            context = attach(accelerator, model, **self.options)
            self.watch = context.watch
        with context as training:
            batches = itertools.islice(itertools.cycle(loader()), n_steps * self.accumulate)
            for i, batch in enumerate(batches):
                model.train()
                with accelerator.accumulate(model):
                    loss = self.loss(*batch)
                    accelerator.backward(loss)
                    optimizer.step()
                    optimizer.zero_grad()
                accelerator.log({"train_loss": loss})
                if self.validate and (i + 1) % N_BATCHES == 0:
                    self._validate(accelerator, model)
                if training is not None and training.should_stop():
                    break
        self.watch = None

    def _validate(self, accelerator, model):
        model.eval()
        with torch.no_grad():
            losses = [self.loss(*batch).item() for batch in loader()]
            accelerator.log({"val_loss": sum(losses) / len(losses)})
