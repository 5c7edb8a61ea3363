"""What comes back through a spiking layer: the surrogate derivative σ′ and ∂L/∂s.

σ′ is read from the surrogate's own node in the autograd graph, so it is the very number that the
backward pass multiplies with. The ratio of the gradients at a layer's input and output is *not*
σ′: backpropagation through time adds the future's terms (measured: 1.41 → 0.19 over eight steps
where σ′ is 0.20–0.25 at each).

∂L/∂s is taken at the tensor that the layer returns. Of a neuron that is called at each step and
does not detach its reset, this includes the way through that reset; of one that gets the whole
sequence it does not, because the returned stack takes no part in the reset. So `grad_norm` of the
two step modes may differ where their spikes and σ′ are the same.
"""

import polars as pl

from .declare import Counter, Table


# |σ′| above which a slot passes a useful gradient back. Surrogates peak at about 1.
SG_ACTIVE = 0.01

_INT, _F64 = pl.Int64(), pl.Float64()

GRADIENTS = Table(
    "gradients",
    "Gradients at a spiking layer",
    [
        Counter("n_sg", _INT, "sum", "Slots at which σ′ was read, and finite"),
        Counter("sum_sg", _F64, "sum", "Σ|σ′| over them"),
        Counter("n_sg_active", _INT, "sum", f"Slots with |σ′| > {SG_ACTIVE}"),
        Counter("n_sg_nonfinite", _INT, "sum", "Reads of σ′ that held NaN or infinity"),
        Counter("n_sg_neurons", _INT, "last", "Neurons for which σ′ was read"),
        Counter(
            "n_carrying",
            _INT,
            "last",
            f"Neurons with |σ′| > {SG_ACTIVE} in at least one slot of the step",
        ),
        Counter(
            "n_grad",
            _INT,
            "sum",
            "Elements of ∂L/∂s seen; 0 where the loss does not use the spikes",
        ),
        Counter("sum_sq_grad", _F64, "sum", "Σ(∂L/∂s)² over them"),
        Counter("n_nonfinite_grad", _INT, "sum", "Gradients ∂L/∂s that held NaN or infinity"),
    ],
)


@GRADIENTS.metric(unit="1", bad="low", source="Neftci, Mostafa & Zenke 2019")
def sg_mean() -> pl.Expr:
    """Surrogate-gradient magnitude: mean |σ′| over all slots of the step."""
    return pl.col("sum_sg") / pl.col("n_sg")


@GRADIENTS.metric(unit="fraction", bad="low", source="in-support share χ (ESG, LSG)")
def sg_active_frac() -> pl.Expr:
    """Share of slots in the surrogate's support: |σ′| > 0.01."""
    return pl.col("n_sg_active") / pl.col("n_sg")


@GRADIENTS.metric(unit="fraction", bad="low")
def grad_carrying_frac() -> pl.Expr:
    """Share of neurons that carry gradient: |σ′| > 0.01 in at least one slot of the step."""
    return pl.col("n_carrying") / pl.col("n_sg_neurons")


@GRADIENTS.metric(unit="1", bad="low")
def grad_norm() -> pl.Expr:
    """‖∂L/∂s‖₂ over all slots of the step. NULL where no backward pass reached the spikes."""
    return pl.when(pl.col("n_grad") > 0).then(pl.col("sum_sq_grad").sqrt())


@GRADIENTS.metric(unit="1", bad="low")
def grad_rms() -> pl.Expr:
    """Root mean square of ∂L/∂s: comparable between layers of different size."""
    return pl.when(pl.col("n_grad") > 0).then((pl.col("sum_sq_grad") / pl.col("n_grad")).sqrt())
