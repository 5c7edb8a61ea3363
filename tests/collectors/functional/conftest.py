"""What functions make, listened to from outside."""

import pytest

from .published import ActFun, Apart


@pytest.fixture(name="made")
def _made(monkeypatch):
    """What the functions make, in the order of their calls, and the gradients that come back."""
    made = []

    def remember(ctx, potential, spikes):
        made.append([potential.detach().clone(), spikes.clone(), None])
        ctx.register_prehook(lambda g, entry=made[-1]: entry.__setitem__(2, g[0].clone()))

    of_actfun, of_apart = ActFun.forward, Apart.setup_context

    def forward(ctx, potential):
        spikes = of_actfun(ctx, potential)
        remember(ctx, potential, spikes)
        return spikes

    def setup_context(ctx, inputs, output):
        of_apart(ctx, inputs, output)
        remember(ctx, inputs[0], output)

    monkeypatch.setattr(ActFun, "forward", staticmethod(forward))
    monkeypatch.setattr(Apart, "setup_context", staticmethod(setup_context))
    return made
