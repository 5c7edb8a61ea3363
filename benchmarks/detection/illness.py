"""What an illness is to the bench."""

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from spikewatch.zoo.training import Training


@dataclass(frozen=True, kw_only=True)
class Illness:
    """One way in which a healthy training goes wrong in practice.

    Attributes:
        name: What `--only` calls it.
        story: What went wrong, in a sentence.
        rule: The shipped rule that has to tell it.
        also: Rules that name the same cause in other words: told first, they are right as well.
        bed: The healthy training that it is planted in, by name.
        layers: Globs of the layers (or scalars) that are ill; an alert there is at the right place.
        strike: Makes the training ill.
        onset: The step before which it strikes. At 0 it may exchange modules, as nothing is watched
            yet; later it has to change what is there.
        n_steps: Length of the training.
        silence_s: So long nothing comes in any more after the last step. The bench does not wait
            for it, but tells the engine that the time has passed.
    """

    name: str
    story: str
    rule: str
    bed: str
    layers: tuple[str, ...]
    strike: Callable[[Training], None]
    also: tuple[str, ...] = ()
    onset: int = 0
    n_steps: int = 150
    silence_s: float = 0.0

    def is_here(self, layer: str) -> bool:
        """Whether a layer is one of those that are ill."""
        return any(fnmatchcase(layer, glob) for glob in self.layers)

    def names(self, rule: str) -> bool:
        """Whether a rule names this illness."""
        return rule == self.rule or rule in self.also
