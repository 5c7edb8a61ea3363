"""Tables that hold records and no metrics: what a run is, what happened in it.

Their columns are declared here and nowhere else, like those of the metrics.
"""

import polars as pl

from .declare import KEYS


_STRING, _F64, _INT = pl.String(), pl.Float64(), pl.Int64()
_RUN = {"run": KEYS["run"], "rank": KEYS["rank"]}
_AT = {"at": KEYS["at"]}
_WHEN = {"phase": KEYS["phase"], "step": KEYS["step"]}

RECORDS: dict[str, dict[str, pl.DataType]] = {
    # One row per rank when a watch begins.
    "runs": _RUN
    | _AT
    | {
        "host": _STRING,
        "pid": _INT,
        "script": _STRING,
        "every": _STRING,
        "torch_version": _STRING,
        "spikewatch_version": _STRING,
    },
    # One row per watched layer; `depth` counts from the input, `kind` is spiking | ternary | tap.
    "layers": _RUN
    | _AT
    | {
        "layer": KEYS["layer"],
        "kind": _STRING,
        "library": _STRING,
        "type": _STRING,
        "depth": pl.Int32(),
        "note": _STRING,
    },
    # Fixed edges within a run, so counts of windows and ranks add up. `edges` has one more than
    # `counts`; `below` and `above` hold what lies outside.
    "histograms": _RUN
    | _WHEN
    | {"layer": KEYS["layer"]}
    | _AT
    | {
        "kind": _STRING,  # amplitude | alpha | latent_weight
        "edges": pl.List(pl.Float64()),
        "counts": pl.List(pl.Int64()),
        "below": _INT,
        "above": _INT,
    },
    # What the user logs: loss, accuracy, learning rate …
    "scalars": _RUN | _WHEN | {"name": _STRING} | _AT | {"value": _F64},
    # One row per transition of one rule on one layer (or scalar).
    "alerts": _RUN
    | _WHEN
    | {"layer": KEYS["layer"]}
    | _AT
    | {
        "rule": _STRING,
        "severity": _STRING,  # info | warning | critical
        "state": _STRING,  # unknown | ok | pending | firing | resolved | no-data | error
        "since_step": _INT,  # step at which the condition began to hold
        "metric": _STRING,
        "value": _F64,
        "summary": _STRING,
        "likely": _STRING,
        "advice": _STRING,
        # What it follows from, and how many follow from it; see `alerts.grouping`.
        "root_rule": _STRING,
        "root_layer": _STRING,
        "n_following": _INT,
    },
    # attached | closed | detached | exception | fault | dropped | note | channel | removed: that of
    # a layer which was taken out of the model, or whose name another one has.
    "events": _RUN
    | {"step": KEYS["step"]}
    | _AT
    | {"kind": _STRING, "layer": KEYS["layer"], "message": _STRING},
}
