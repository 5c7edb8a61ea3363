"""What comes back through a spiking layer: the surrogate derivative σ′ and ∂L/∂s.

σ′ is read from the surrogate's own node in the autograd graph, so it is the very number that the
backward pass multiplies with. The ratio of the gradients at a layer's input and output is *not*
σ′: backpropagation through time adds the future's terms (measured: 1.41 → 0.19 over eight steps
where σ′ is 0.20–0.25 at each).

∂L/∂s is taken at the tensor that the layer returns. Of a neuron that is called at each step and
does not detach its reset, this includes the way through that reset; of one that gets the whole
sequence it does not, because the returned stack takes no part in the reset. So `grad_norm` of the
two step modes may differ where their spikes and σ′ are the same. What a `GradScaler` multiplied
the loss by is taken out again.
"""

from collections.abc import Sequence
from typing import Any

import polars as pl

from .declare import Counter, Table


# |σ′| above which a slot passes a useful gradient back. Surrogates peak at about 1.
SG_ACTIVE = 0.01
# A neuron without such a slot in so many latest ones passes on less than 1 % of them, with 95 %
# confidence (rule of three).
CARRYING_EVIDENCE_OBS = 299

_INT, _F64 = pl.Int64(), pl.Float64()

GRADIENTS = Table(
    "gradients",
    "Gradients at a spiking layer",
    [
        Counter("n_sg", _INT, "sum", "Slots at which σ′ was read, and finite"),
        Counter("sum_sg", _F64, "sum", "Σ|σ′| over them"),
        Counter("sum_sq_sg", _F64, "sum", "Σσ′² over them"),
        Counter("n_sg_active", _INT, "sum", f"Slots with |σ′| > {SG_ACTIVE}"),
        Counter("n_sg_nonfinite", _INT, "sum", "Reads of σ′ that held NaN or infinity"),
        Counter("n_sg_negative", _INT, "sum", "Reads in which σ′ had the wrong sign"),
        Counter("n_sg_neurons", _INT, "last", "Neurons for which σ′ was read"),
        Counter(
            "n_carrying",
            _INT,
            "last",
            f"Neurons with |σ′| > {SG_ACTIVE} in at least one of the latest "
            f"{CARRYING_EVIDENCE_OBS} slots at which σ′ was read (or as many as there were)",
        ),
        Counter("n_dead_carrying", _INT, "last", "Dead neurons among those"),
        Counter("n_dead_lost", _INT, "last", "Dead neurons that are not among those"),
        Counter(
            "n_grad",
            _INT,
            "sum",
            "Elements of ∂L/∂s seen; 0 where the loss does not use the spikes",
        ),
        Counter("sum_sq_grad", _F64, "sum", "Σ(∂L/∂s)² over them"),
        Counter("n_nonfinite_grad", _INT, "sum", "Time steps whose ∂L/∂s held NaN or infinity"),
        Counter("sum_sq_grad_first", _F64, "sum", "Σ(∂L/∂s)² at the first time step"),
        Counter("sum_sq_grad_last", _F64, "sum", "Σ(∂L/∂s)² at the last time step"),
        Counter("n_grad_deepest", _INT, "sum", "Elements of ∂L/∂s at the deepest layer with any"),
        Counter("sum_sq_grad_deepest", _F64, "sum", "Σ(∂L/∂s)² over them"),
        Counter(
            "is_unused",
            _INT,
            "last",
            "1 where the loss uses spikes before these, or this layer's membrane potential, but "
            "not these",
        ),
        Counter(
            "is_cut",
            _INT,
            "last",
            "1 where the spikes have no graph, and the weights before them got no gradient by "
            "another way, nor a change, though an optimizer holds them",
        ),
    ],
)


@GRADIENTS.metric(unit="1", bad="low", source="Neftci, Mostafa & Zenke 2019")
def sg_mean() -> pl.Expr:
    """Surrogate-gradient magnitude: mean |σ′| over the slots that were read.

    These are all slots of the first observed step, and one time step of each later one, in turn.
    """
    return pl.col("sum_sg") / pl.col("n_sg")


@GRADIENTS.metric(unit="fraction", bad="low", source="in-support share χ (ESG, LSG)")
def sg_active_frac() -> pl.Expr:
    """Share of slots in the surrogate's support: |σ′| > 0.01."""
    return pl.col("n_sg_active") / pl.col("n_sg")


@GRADIENTS.metric(unit="fraction", bad="low", source="Kish 1965, effective sample size")
def sg_effective_frac() -> pl.Expr:
    """Share of slots that effectively carry the gradient: (Σ|σ′|)² / (n Σσ′²).

    1 where all slots carry alike; 1/n where a single one carries all.
    """
    squares = pl.col("n_sg") * pl.col("sum_sq_sg")
    return pl.when(squares > 0).then(pl.col("sum_sg").pow(2) / squares)


@GRADIENTS.metric(unit="fraction", bad="low")
def grad_carrying_frac() -> pl.Expr:
    """Share of neurons that carry gradient: |σ′| > 0.01 in at least one of 299 latest slots."""
    return pl.col("n_carrying") / pl.col("n_sg_neurons")


@GRADIENTS.metric(unit="fraction", bad="high")
def recoverable_frac() -> pl.Expr:
    """Share of neurons that are silent but recoverable: dead, yet σ′ lets gradient through."""
    return pl.col("n_dead_carrying") / pl.col("n_sg_neurons")


@GRADIENTS.metric(unit="fraction", bad="high")
def lost_frac() -> pl.Expr:
    """Share of neurons that are truly dead: no event, and σ′ lets no gradient through either."""
    return pl.col("n_dead_lost") / pl.col("n_sg_neurons")


@GRADIENTS.metric(unit="1", bad="low")
def grad_norm() -> pl.Expr:
    """‖∂L/∂s‖₂ over all slots of the step, without a `GradScaler`'s factor.

    NULL where no backward pass reached the spikes.
    """
    return pl.when(pl.col("n_grad") > 0).then(pl.col("sum_sq_grad").sqrt())


@GRADIENTS.metric(unit="1", bad="low")
def grad_rms() -> pl.Expr:
    """Root mean square of ∂L/∂s: comparable between layers of different size."""
    return pl.when(pl.col("n_grad") > 0).then((pl.col("sum_sq_grad") / pl.col("n_grad")).sqrt())


@GRADIENTS.metric(unit="1", bad="outside", source="tdBN 2021; SEW ResNet 2021")
def grad_depth_ratio() -> pl.Expr:
    """RMS of ∂L/∂s here over that at the deepest spiking layer; it vanishes or explodes far from 1.

    Layers are in the order of the model's definition. In the row of the first layer this is the
    first-to-last ratio through depth.
    """
    deepest = pl.col("sum_sq_grad_deepest") / pl.col("n_grad_deepest")
    ratio = pl.col("sum_sq_grad") / pl.col("n_grad") / deepest
    return pl.when((pl.col("n_grad") > 0) & (deepest > 0)).then(ratio.sqrt())


@GRADIENTS.metric(unit="1", bad="outside", source="backpropagation through time")
def grad_time_ratio() -> pl.Expr:
    """RMS of ∂L/∂s at the first time step over that at the last one.

    Large where it explodes on its way back; and where the last steps have nothing left to learn.
    """
    last = pl.col("sum_sq_grad_last")
    return pl.when(last > 0).then((pl.col("sum_sq_grad_first") / last).sqrt())


def add_deepest(rows: Sequence[dict[str, Any]]) -> None:
    """Tell the rows of one step what reached the deepest layer; not those behind it.

    A readout's spikes, which no loss uses, stand behind it: they are unused. A layer before it
    without gradient is detached from the loss, unless its row says already that the loss uses its
    membrane potential: then it is a readout with other layers defined after it. Where no layer has
    any gradient, no more is known than that.

    Args:
        rows: Rows of `gradients` of one step, in the order of depth; changed in place.
    """
    last = next((i for i in reversed(range(len(rows))) if (rows[i].get("n_grad") or 0) > 0), None)
    if last is not None:
        n, squares = rows[last]["n_grad"], rows[last]["sum_sq_grad"]
        for row in rows[: last + 1]:
            row.update(n_grad_deepest=n, sum_sq_grad_deepest=squares)
            row.setdefault("is_unused", 0)
        for row in rows[last + 1 :]:
            if row.get("n_grad") is not None:
                row.update(is_unused=int(not row.get("n_nonfinite_grad")))
