"""Precision: the first and the last layer of a network are best kept precise."""

from spikewatch.observing import Counts

from .reading import WeightInstrument, Weights


class Precision(WeightInstrument):
    """Says of a quantized layer whether it is the first or the last one."""

    def read(self, weights: Weights) -> Counts | None:
        """Counters of `weights`."""
        place = weights.place
        if place is None:
            return None
        return Counts(
            {
                "weights": {
                    "is_first_layer": int(place.first),
                    "is_last_layer": int(place.last),
                    "n_model_weights": place.census.n_weights,
                }
            }
        )
