"""Synaptic operations of weight layers, and three models of what they cost.

Counted from what a layer multiplies its weights with: a nonzero input reaches so many outputs, its
*fan-out*, and each is one synaptic operation (SOP; exact for strides, padding, dilation, groups).
A binary or {−a, 0, +a} input needs additions only (AC). Where an input has more levels – residual
sums of spikes, averages, images – every weight is multiplied (MAC), zeros or not. But where the
model has neurons that may fire several times in a time step (sinabs, rockpool), whole numbers are
counts of spikes, also when they were pooled or added up, and n of them are n additions; up to 5.1
on average, from where on so many additions cost more than a multiplication, and which pixels of
0 to 255 are above.

Where the *weights* are ternary, {−α, 0, +α}, any input is only added or subtracted: one addition
for each nonzero weight that an input meets, be the input 0 or not. Counted as *additions*, apart
from those of spikes. The multiplication by α, one for each output, can be folded into the
normalisation or threshold that follows, and is not counted. A spike that meets a ternary weight is
counted as a SOP, as is usual, also where that weight is 0. While such a network is trained it
multiplies: these are the figures of the network that it becomes.

The same network without spikes would run each operation once a sample, not T times: its MACs are
those of one time step, with weights in full precision. A network that has no spiking layer at all
runs once a sample (T = 1); the samples are then those of the first axis of the input of its first
or last weight layer, the shorter one: in between, experts get a part of them, and windows or tokens
are samples of their own. But where its weights are given what was made in the network and looks
like spikes, of whose time steps nobody knows, no samples are told. Products with the zeros of a
padding are counted in neither.

A layer that is called once a sample, where others run at each time step, is one of that one step:
an encoder of a constant current, or a readout of the mean. Unless a convolution has the time within
its input: where it may, since an axis is as long as time, its ratios stay NULL.

Three models, for a network of 32-bit floats in 45 nm (Horowitz 2014). They differ by more than
the network does, so none of them stands alone:

* *compute*: an addition costs 0.9 pJ, a multiplication with addition 4.6 pJ. The network with
  spikes is the cheaper one below a rate of 5.11/T: for T ≤ 5 at any rate.
* *equal cost*: an addition costs as much as a multiplication with addition; the break-even is a
  sparsity of 1 − 1/T (75 % for T = 4). Often quoted; true where operations are counted, not energy.
* *memory*: to compute, reading each weight without reuse, and, with spikes, reading and writing the
  membrane potential of each output at each time step; 5 pJ for 32 bits from an 8 KB memory. What
  moves data decides: with it, far fewer spikes are affordable (Dampfhoffer et al. 2023, Yan et al.
  2024). Reuse, larger memories and idle power are not in it.

Formulas in circulation charge the reading of weights by the *sparsity* of the input. It goes with
the rate, 1 − sparsity: a silent input has no weight read.

What a module multiplies by itself is counted as well: a weight that it keeps and hands to
`F.linear`, a convolution or a matrix product; and, at the module, its products of two activations,
as in attention. The spikes of one side drive such a product: each reaches the outputs that it has a
partner for, be that 0 or not. Where both sides spike, the one that reaches less does; where none
does, all multiply, also what a mask leaves out afterwards. Not counted: products element by
element, look-ups in embeddings, and the recurrent, attention and encoder layers of torch itself.
"""

import collections
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from .declare import Counter, Table


PJ_PER_MAC = 4.6
PJ_PER_AC = 0.9
PJ_PER_ACCESS = 5.0
# Fewer may look alike by chance: a dead ReLU lets a single number through.
_FEW_SPIKES = 16

_INT, _F64 = pl.Int64(), pl.Float64()

ENERGY = Table(
    "energy",
    "Operations of a weight layer, and their energy",
    [
        Counter("n_inputs", _INT, "sum", "Input elements"),
        Counter("n_nonzero_inputs", _INT, "sum", "Nonzero input elements"),
        Counter("n_outputs", _INT, "sum", "Output elements"),
        Counter("n_sops", _INT, "sum", "Synaptic operations of spikes: additions"),
        Counter("n_macs", _INT, "sum", "Multiplications with addition, for inputs that are none"),
        Counter(
            "n_additions", _INT, "sum", "Additions in their place, where the weights are ternary"
        ),
        Counter("n_dense_macs", _INT, "sum", "Operations if every input were nonzero"),
        Counter("n_samples", _F64, "sum", "Samples behind them"),
        Counter("sum_time_steps", _F64, "sum", "Time steps of these samples, added up"),
    ],
)


def _time_steps() -> pl.Expr:
    return pl.col("sum_time_steps") / pl.col("n_samples")


def _without_spikes() -> pl.Expr:
    """MACs of the same network run once a sample."""
    return pl.col("n_dense_macs") / _time_steps()


@ENERGY.metric(unit="count", bad="high", source="Merolla et al. 2014")
def sops_per_sample() -> pl.Expr:
    """Synaptic operations of spikes for one sample, over all its time steps."""
    return pl.col("n_sops") / pl.col("n_samples")


@ENERGY.metric(unit="fraction", bad="high")
def input_rate_frac() -> pl.Expr:
    """Share of input elements that are nonzero."""
    return pl.col("n_nonzero_inputs") / pl.col("n_inputs")


@ENERGY.metric(unit="fraction", bad="high")
def mac_frac() -> pl.Expr:
    """Share of the operations that multiply: the input is no spike, nor the weight ternary."""
    return pl.col("n_macs") / pl.col("n_dense_macs")


def _adds() -> pl.Expr:
    return pl.col("n_sops") + pl.col("n_additions").fill_null(0)


def _pj() -> pl.Expr:
    return PJ_PER_AC * _adds() + PJ_PER_MAC * pl.col("n_macs")


@ENERGY.metric(unit="pJ", bad="high", source="Horowitz 2014, 45 nm, 32-bit float")
def compute_pj_per_sample() -> pl.Expr:
    """Energy of the arithmetic for one sample: 0.9 pJ an addition, 4.6 pJ a MAC."""
    return _pj() / pl.col("n_samples")


@ENERGY.metric(unit="1", bad="high", source="Horowitz 2014; break-even rate 5.11/T")
def energy_ratio_compute() -> pl.Expr:
    """Arithmetic with spikes over that of the same layer without; below 1, spikes are cheaper."""
    return _pj() / (PJ_PER_MAC * _without_spikes())


@ENERGY.metric(unit="1", bad="high", source="operation count; break-even sparsity 1 − 1/T")
def energy_ratio_equal_cost() -> pl.Expr:
    """Operations with spikes over those without, an addition counted like a MAC."""
    return (_adds() + pl.col("n_macs")) / _without_spikes()


@ENERGY.metric(unit="1", bad="high", source="Dampfhoffer et al. 2023; Yan et al. 2024 (idea)")
def energy_ratio_memory() -> pl.Expr:
    """Arithmetic and memory traffic with spikes over that without; see the table's assumptions."""
    operations = _adds() + pl.col("n_macs")
    traffic = PJ_PER_ACCESS * (operations + 2 * pl.col("n_outputs"))
    spiking = _pj() + traffic
    inputs = pl.col("n_inputs") / _time_steps()
    dense = PJ_PER_MAC * _without_spikes() + PJ_PER_ACCESS * (_without_spikes() + inputs)
    return spiking / dense


def add_ternary(rows: Mapping[str, Sequence[dict[str, Any]]]) -> None:
    """Turn the multiplications of layers with ternary weights into additions.

    Exact where each weight is used as often as the others: not quite for convolutions with padding,
    whose outer taps meet the border.

    Args:
        rows: Rows of one step by table; those of `energy` are changed in place.
    """
    used = {
        r["layer"]: 1 - r["n_weight_zero"] / r["n_weights"]
        for r in rows.get("weights", ())
        if r.get("n_weights")
    }
    for row in rows.get("energy", ()):
        if row["layer"] in used:
            row["n_additions"], row["n_macs"] = row["n_macs"] * used[row["layer"]], 0


def add_samples(
    rows: Mapping[str, Sequence[dict[str, Any]]], *, spiking: bool = False
) -> str | None:
    """Tell the rows of one step how many samples and time steps stand behind them.

    Weight layers do not know what of their input is time; the spiking layers do. Where there are
    some and none knows, both stay NULL, and so do the ratios; and where there are none, but weights
    are given what is made in the network and looks like spikes.

    Args:
        rows: Rows of one step by table; those of `energy` are changed in place. `n_leading` there
            is the size of an input's first axis, summed over calls, `n_called` how many inputs the
            layer was given, `n_along`, for each axis that a convolution slides over, how many they
            would be if that was time, and whether the kernel takes each of its places alone, and
            `n_made_spikes` how many of its nonzero inputs are like spikes and made in the network;
            `n_timed_obs` in `timing` the observations of a neuron in the calls that operations were
            counted in; they are taken out, since they are of no use alone.
        spiking: Whether the network has spiking layers, though none may have been heard.

    Returns:
        The layer that is given spikes of which nobody knows where they come from; None: there is
        none.
    """
    energy = rows.get("energy", ())
    leading = [r.pop("n_leading", None) for r in energy]
    called = [r.pop("n_called", None) for r in energy]
    along = [r.pop("n_along", None) or () for r in energy]
    made = [r.pop("n_made_spikes", None) or 0 for r in energy]
    spiking = spiking or bool(rows.get("spikes"))
    given = (r["layer"] for r, n in zip(energy, made, strict=True) if n >= _FEW_SPIKES)
    if not spiking and (unknown := next(given, None)) is not None:
        return unknown
    told = _observed_samples(rows) if spiking else _leading_samples(leading)
    if not told:
        return None
    neurons = {r.get("layer") for r in rows.get("timing", ())}  # with weights of their own, some
    apart = (n for r, n in zip(energy, called, strict=True) if r.get("layer") not in neurons)
    longest = max((n for n in apart if n), default=0)
    for row, n_called, axes in zip(energy, called, along, strict=True):
        # A part of a model may be asked about samples of its own, as an agent and its target are.
        known = next((x for x in told if x[1] == n_called), told[0])
        n_samples, sum_time_steps = row["n_samples"], row["sum_time_steps"] = known
        # Where no weights run at each step, neurons have some more: one of zeros before the input.
        if n_samples < longest < sum_time_steps and longest % n_samples == 0:
            row["sum_time_steps"] = sum_time_steps = longest
        # A readout of the mean over time runs once a sample, where others run at each step; so does
        # an encoder that makes a constant current.
        if n_called == n_samples < sum_time_steps and sum_time_steps in called:
            within = _has_time_within(axes, sum_time_steps)
            row["sum_time_steps"] = {True: sum_time_steps, False: n_samples, None: None}[within]
    return None


def _has_time_within(axes: Sequence[tuple[float, bool]], sum_time_steps: float) -> bool | None:
    """Whether one of the axes that a convolution slides over is time; None where it may be.

    It is, where the convolution takes each of its places alone, as a kernel of (k, k, 1) does. Two
    that are as long as each other, and are treated alike, are those of an image.
    """
    as_long = [alone for n, alone in axes if n == sum_time_steps]
    if sum(as_long) == 1:
        return True
    return None if len(as_long) == 1 else False


def _leading_samples(leading: Sequence[float | None]) -> list[tuple[float, float]]:
    """Samples of a network without spikes, which runs once a sample."""
    told = [n for n in leading if n]
    return [(n := float(min(told[0], told[-1])), n)] if told else []


def _observed_samples(
    rows: Mapping[str, Sequence[dict[str, Any]]],
) -> list[tuple[float, float]]:
    """Samples, and their time steps added up, as the layers saw them that know of time.

    What most of them say comes first.

    One that starts anew at each time step takes that for a sample, and one that is given time and
    batch in one axis takes both for time. Where as many say one thing as another, those are right
    that were observed most: a part of the samples may go some other way.
    """
    steps = [
        (n_obs, r["sum_ttfs_length_steps"] / r["n_ttfs_pairs"])
        for r in rows.get("timing", ())
        if (n_obs := r.pop("n_timed_obs", None)) and r.get("sum_ttfs_length_steps")
    ]
    votes = collections.Counter(steps)
    ranked = sorted(votes, key=lambda told: (told[1] > 1, votes[told], told), reverse=True)
    return [(n_obs / n_steps, float(n_obs)) for n_obs, n_steps in ranked]
