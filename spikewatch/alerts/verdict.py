"""What is to be said of a run: which alerts fired, what follows from which, in words and a code."""

from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from ..metrics import RECORDS
from ..metrics.wide import SCALAR_COLUMNS
from .lines import diagnosis, place
from .rule import SEVERITIES


LANE = ["rank", "phase", "rule", "layer"]
_ROOT = ["rank", "phase", "root_rule", "root_layer"]
_MAX_NAMED = 4
_NOT_JUDGED = ("unknown", "no-data", "error")


@dataclass(frozen=True)
class Verdict:
    """What is to be said of a run.

    Attributes:
        run: Its name.
        exit_code: 0 healthy, 1 an alert of the asked severity fired at some time, 2 there is
            nothing to judge.
        fired: Every alert that fired, of any severity, worst first: the row of the table `alerts`
            of its first firing, with its `state` now (`firing` or `resolved`), `n_fired` (how
            often), `last_step` (of the latest change), what it follows from in the end
            (`root_rule`, `root_layer`) and how many follow from it (`n_following`).
        unknown: `rule`, `phase`, `layer` (and rank) for which there was never enough evidence,
            though there may be with more observations.
        lines: All of it in words.
    """

    run: str
    exit_code: int
    fired: pl.DataFrame
    unknown: pl.DataFrame
    lines: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether the run was judged and found healthy."""
        return self.exit_code == 0

    @property
    def roots(self) -> pl.DataFrame:
        """Those of `fired` that follow from no other."""
        return self.fired.filter(pl.col("root_rule").is_null())


def nothing(run: str, why: str) -> Verdict:
    """The verdict where there is nothing to judge."""
    schema = RECORDS["alerts"]
    fired = pl.DataFrame(schema=schema | {"n_fired": pl.Int64, "last_step": schema["step"]})
    return Verdict(run, 2, fired, fired.select(LANE), (why,))


def judge(
    run: str,
    alerts: pl.DataFrame,
    *,
    fail_on: str,
    state: str,
    notes: Sequence[str] = (),
    absent: Container[tuple[str, str]] = (),
) -> Verdict:
    """The verdict by the transitions of a run.

    Args:
        run: Its name.
        alerts: Rows of the table `alerts`, in order.
        fail_on: The least severity that counts.
        state: What became of the run, see `spikewatch.store.runs.STATES`.
        notes: What else is to be said.
        absent: Layers and figures that there is nothing to compute from, now or later.
    """
    lanes = alerts.group_by(LANE, maintain_order=True).agg(
        pl.col("state").last().alias("latest"),
        pl.col("step").last().alias("last_step"),
        pl.col("metric").last(),
        pl.col("root_rule", "root_layer")
        .filter(pl.col("state").is_in(["firing", "resolved"]))
        .last(),
    )
    fired = _fired(alerts, lanes)
    waiting = lanes.filter(latest="unknown")
    places = waiting.select("layer", "metric").iter_rows()
    is_absent = pl.Series([place in absent for place in places], dtype=pl.Boolean)
    unknown = waiting.filter(~is_absent).select(LANE)
    code, head = _head(fired, lanes, fail_on)
    if state != "finished":
        words = {"running": "still running", "failed": "ended by an exception", "lost": "killed"}
        head += f" ({words.get(state, state)})"
    lines = [
        f"run {run!r}: {head}",
        *fired_lines(fired),
        *_error_lines(alerts.filter(state="error")),
        *_no_data_lines(lanes.filter(latest="no-data")),
        *_unknown_lines(unknown),
        *_absent_lines(waiting.filter(is_absent)),
        *notes,
    ]
    return Verdict(run, code, fired, unknown, tuple(lines))


def _head(fired: pl.DataFrame, lanes: pl.DataFrame, fail_on: str) -> tuple[int, str]:
    grave = fired.filter(pl.col("severity").is_in(SEVERITIES[SEVERITIES.index(fail_on) :]))
    judged = lanes.filter(~pl.col("latest").is_in(_NOT_JUDGED))
    if grave.height:
        n_roots = grave["root_rule"].null_count()
        n_more = grave.height - n_roots
        head = f"{count(n_roots or n_more, 'alert')} of severity {fail_on} or above"
        return 1, head + (f", and {follow(n_more)}" if n_roots and n_more else "")
    if judged.height:
        of_scalar = judged["metric"].is_in(list(SCALAR_COLUMNS))
        n_scalars = judged.filter(of_scalar)["layer"].n_unique()
        n_layers = judged.filter(~of_scalar)["layer"].n_unique()
        counts = {"layer": n_layers, "scalar": n_scalars}
        where = " and ".join(count(n, what) for what, n in counts.items() if n)
        return 0, f"healthy by {count(judged['rule'].n_unique(), 'rule')} on {where}"
    return 2, "no rule could be judged; observe more steps"


def _fired(alerts: pl.DataFrame, lanes: pl.DataFrame) -> pl.DataFrame:
    # A firing row after a firing row says that the root is another one.
    began = (pl.col("state") == "firing") & (
        pl.col("state").shift(1).over(LANE) != "firing"
    ).fill_null(value=True)
    firing = alerts.filter(began)
    first = firing.group_by(LANE, maintain_order=True).first()
    often = firing.group_by(LANE).agg(pl.len().cast(pl.Int64).alias("n_fired"))
    order = {severity: -i for i, severity in enumerate(SEVERITIES)}
    fired = (
        first.drop("root_rule", "root_layer", "n_following")
        .join(often, on=LANE)
        .join(lanes.drop("metric"), on=LANE)
        .with_columns(
            pl.when(latest="firing")
            .then(pl.lit("firing"))
            .otherwise(pl.lit("resolved"))
            .alias("state")
        )
    )
    # What was folded under something that never fired stands for itself.
    told = fired.select(pl.struct(LANE))[LANE[0]].to_list()
    roots = fired.select(pl.struct(_ROOT).alias("root"))["root"].to_list()
    known = {tuple(lane.values()) for lane in told}
    stands = pl.Series([tuple(root.values()) not in known for root in roots], dtype=pl.Boolean)
    fired = fired.with_columns(
        pl.when(stands).then(None).otherwise(pl.col(c)).alias(c)
        for c in ("root_rule", "root_layer")
    )
    following = fired.group_by(_ROOT).agg(pl.len().cast(pl.Int64).alias("n_following"))
    return (
        fired.join(following, left_on=LANE, right_on=_ROOT, how="left", maintain_order="left")
        .with_columns(pl.col("n_following").fill_null(0))
        .select(*alerts.columns, "n_fired", "last_step")
        .sort(pl.col("severity").replace_strict(order, return_dtype=pl.Int8), "since_step", *LANE)
    )


def fired_lines(fired: pl.DataFrame) -> list[str]:
    """A line for each root, with what follows from it below."""
    lines = []
    for row in fired.filter(pl.col("root_rule").is_null()).iter_rows(named=True):
        now = "still firing" if row["state"] == "firing" else f"resolved at step {row['last_step']}"
        often = f", fired {row['n_fired']} times" if row["n_fired"] > 1 else ""
        lines.append(
            f"{row['severity'].upper()} {row['rule']} on {place(row)} since step "
            f"{row['since_step']}, {now}{often}: {diagnosis(row)}"
        )
        if row["n_following"]:
            lines.append(f"  + {follow(row['n_following'])} from it: {followers(fired, row)}")
    return lines


def followers(fired: pl.DataFrame, root: dict[str, Any]) -> str:
    """The alerts that follow from a root, as rule and layer."""
    found = fired.filter(
        *(pl.col(c).eq_missing(root[of]) for c, of in zip(_ROOT, LANE, strict=True))
    )
    names = [f"{r['rule']} on {r['layer']!r}" for r in found.iter_rows(named=True)]
    return _some(names)


def _error_lines(errors: pl.DataFrame) -> list[str]:
    rows = errors.unique(["rule"], maintain_order=True).iter_rows(named=True)
    return [f"error {row['rule']}: {row['summary']}" for row in rows]


def _no_data_lines(lanes: pl.DataFrame) -> list[str]:
    """One line for each layer from which nothing came any more."""
    gone = lanes.group_by("layer", maintain_order=True).agg(pl.col("last_step").max())
    return [f"no data of {layer!r} since about step {step}" for layer, step in gone.iter_rows()]


def _unknown_lines(unknown: pl.DataFrame) -> list[str]:
    """One line for each rule that had no verdict on some layers."""
    lines = []
    for (rule,), lanes in unknown.group_by("rule", maintain_order=True):
        layers = list(dict.fromkeys(map(place, lanes.iter_rows(named=True))))
        lines.append(f"unknown {rule} on {_some(layers)}: not enough evidence")
    return lines


def _absent_lines(lanes: pl.DataFrame) -> list[str]:
    """One line for all layers that lack the same figures."""
    lacking: dict[tuple[str, str], list[str]] = {}
    for (layer,), rows in lanes.group_by("layer", maintain_order=True):
        rules = _some(sorted(rows["rule"].unique()))
        metrics = _some(sorted(rows["metric"].unique()))
        lacking.setdefault((rules, metrics), []).append(repr(layer))
    return [
        f"not applicable on {_some(layers)}: {rules}; there is no {metrics}"
        for (rules, metrics), layers in lacking.items()
    ]


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
    return ", ".join(names[:_MAX_NAMED]) + more


def follow(n: int) -> str:
    """`1 that follows`, `2 that follow`."""
    return f"{n} that follow{'s'[: n == 1]}"


def count(n: int, noun: str) -> str:
    """`1 alert`, `2 alerts`."""
    return f"{n} {noun}{'s'[: n != 1]}"
