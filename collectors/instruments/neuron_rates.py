"""How often each neuron fires, over windows of enough observations, at a slower pace."""

import math

from spikewatch.metrics.spikes import DEAD_EVIDENCE_OBS
from spikewatch.observing import Counters, Counts

from ..arrays import Array, as_tensor
from ..calls import Call, Subject
from ..strides import fair_stride


_MOST_NEURONS = 4096
# Windows 1, 2, 4, 8 and every 16th are kept: a list of neurons is long.
_PACE = 16


class NeuronRates:
    """Adds up the events that `SpikeCounts` counted, neuron by neuron."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._window: Array | None = None
        self._n_obs = 0
        self._n_windows = 0

    def add(self, call: Call) -> None:
        """Nothing to read: the events are counted already."""

    def flush(self) -> Counts | None:
        """Counters of the table `neurons` where a window is full, and due."""
        step = self._subject.step
        if step is None:
            return None
        events, n_obs = step
        if not self._is_due(self._n_windows + 1):
            self._n_obs += n_obs
            self._end_window()
            return None
        self._window = events if self._window is None else self._window + events
        self._n_obs += n_obs
        whole, n_whole = self._window, self._n_obs
        if not self._end_window():
            return None
        stride = fair_stride(math.prod(whole.shape), _MOST_NEURONS)
        counters: Counters = {
            "n_neuron_obs": n_whole,
            "neuron_stride": stride,
            "neuron_counts": as_tensor(whole.reshape(-1)[::stride]).long(),
        }
        if whole.ndim > 2:
            counters["neurons_per_channel"] = math.prod(whole.shape[1:])
        return Counts({"neurons": counters})

    def _end_window(self) -> bool:
        if self._n_obs < DEAD_EVIDENCE_OBS:
            return False
        self._n_windows += 1
        self._window, self._n_obs = None, 0
        return True

    @staticmethod
    def _is_due(number: int) -> bool:
        return number % _PACE == 0 or (number < _PACE and number & (number - 1) == 0)
