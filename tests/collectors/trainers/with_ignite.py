"""The training of the tests, by Ignite."""

import itertools
import warnings

import torch

from .little_net import N_BATCHES, Training, loader, optimizer_of


with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from ignite.engine import Engine, Events
    from ignite.metrics import Average

    from spikewatch.collectors.trainers.ignite import SpikewatchHandler


class Ignite(Training):
    def __init__(self, net, options, **more):
        super().__init__(net, options, **more)
        self._optimizer = optimizer_of(net)
        self.trainer, self.evaluator = Engine(self._update), Engine(self._evaluate)
        Average().attach(self.evaluator, "loss")
        Average().attach(self.trainer, "mean_loss")
        self.handler = None if options is None else SpikewatchHandler(net, **options)
        if self.handler is not None:
            self.handler.attach(self.trainer, {"val": self.evaluator})
        if self.validate:
            after = Events.ITERATION_COMPLETED(every=N_BATCHES)
            self.trainer.add_event_handler(after, lambda: self.evaluator.run(loader()))

    @property
    def watch(self):
        return self.handler.watch

    def fit(self, n_steps):
        # An epoch of all the steps, so that a second training begins anew.
        batches = list(itertools.islice(itertools.cycle(loader()), n_steps * self.accumulate))
        self.trainer.run(batches, max_epochs=1)

    def _update(self, engine, batch):
        self.net.train()
        loss = self.loss(*batch)
        (loss / self.accumulate).backward()
        if engine.state.iteration % self.accumulate == 0:
            self._optimizer.step()
            self._optimizer.zero_grad()
        return loss.item()

    def _evaluate(self, engine, batch):
        self.net.eval()
        with torch.no_grad():
            return self.loss(*batch).item()
