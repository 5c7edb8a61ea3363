"""The catalogue of metrics: every table, counter and metric, each declared once.

To add a metric, write one decorated function beside its table. To add an aspect, add a file with
a `Table` and name it in `TABLES`.
"""

from .amplitudes import AMPLITUDES
from .declare import KEYS, Counter, Metric, Table
from .distillation import DISTILLATION
from .dynamics import DYNAMICS
from .energy import ENERGY
from .estimator import ESTIMATOR
from .gradients import GRADIENTS
from .latent import LATENT
from .membrane import MEMBRANE
from .neurons import NEURONS
from .records import RECORDS
from .spikes import SPIKES
from .timing import TIMING
from .transitions import TRANSITIONS
from .weights import WEIGHTS


_ALL = (
    SPIKES,
    NEURONS,
    TIMING,
    MEMBRANE,
    GRADIENTS,
    DYNAMICS,
    AMPLITUDES,
    WEIGHTS,
    LATENT,
    ESTIMATOR,
    TRANSITIONS,
    ENERGY,
    DISTILLATION,
)
TABLES: dict[str, Table] = {t.name: t for t in _ALL}
METRICS: dict[str, Metric] = {m.name: m for t in TABLES.values() for m in t.metrics}

_names = [name for t in TABLES.values() for name in t.schema if name not in KEYS]
if len(set(_names)) != len(_names):  # a rule names a column without its table
    raise AssertionError(f"declared twice: {sorted({n for n in _names if _names.count(n) > 1})}")

__all__ = [
    "KEYS",
    "METRICS",
    "RECORDS",
    "TABLES",
    "Counter",
    "Metric",
    "Table",
]
