"""Evaluations: which forward passes of them are observed. Whole samples, whatever a pass is.

A loop over time calls the model at each time step, and then one pass of n is one time step of n:
always the first, maybe, at which nobody can fire yet. So what the sampler chooses of an evaluation
is samples. How many passes one takes is what a step of training took; before there was any, and
where it took one, the layers tell, which know when a sample begins.
"""

from .sampling import Sampler


# So many passes at most are observed to find out how many make a sample.
_MOST_WATCHED = 128
# In so many evaluations at most it is tried to find that out.
_MOST_TRIES = 8


class Evaluations:
    """Chooses the forward passes of evaluations that are observed.

    Attributes:
        detailed: Whether the dear readings are due in the pass that was chosen last.
    """

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler
        self._chosen = self.detailed = False
        self._n_passes = 0  # of the evaluation that goes on
        self._length = 0  # passes that make a sample, as the layers have told; 0: not known
        self._finds_out = False  # how many they are: all passes are observed until then
        self._n_tries = 0  # evaluations that were over before it was found out
        self._began: dict[str, int] = {}  # by layer: the pass that its latest sample began with
        self._lengths: dict[str, int] = {}  # by layer: passes of the longest of its samples

    @property
    def is_whole(self) -> bool:
        """Whether a sample is over, or a batch of them, and no other one has begun."""
        n = self._n_passes
        return n > 0 and not self._finds_out and n % (self._length or 1) == 0

    def observe(self, *, usual: int) -> bool:
        """Whether the forward pass that begins is observed.

        Args:
            usual: Passes that a step of training takes; 0 where it is not known.
        """
        n, self._n_passes = self._n_passes, self._n_passes + 1
        if n > 0 and self._finds_out:
            self._find_out(n)
        length = self._length or usual
        if n == 0 or (length and n % length == 0 and not self._finds_out):
            self._chosen = self._sampler.observe_evaluation(n // (length or 1))
            # In online training each time step is a step.
            self._finds_out = self._chosen and n == 0 and not self._length and usual < 2
            self.detailed = self._finds_out or self._sampler.detailed()
            self._began, self._lengths = {}, {}
        return self._chosen

    def begins_sample(self, layer: str) -> None:
        """A layer says that a sample of it begins in this pass."""
        if self._finds_out:
            n = self._n_passes - 1
            since = n - self._began.get(layer, n)
            self._began[layer] = n
            if since:
                self._lengths[layer] = max(since, self._lengths.get(layer, 0))

    def end(self) -> None:
        """The evaluation is over."""
        if self._finds_out:
            self._n_tries += 1
            if self._n_tries == _MOST_TRIES:  # each may be one sample
                cut_off = (self._n_passes - n for n in self._began.values())
                self._length = max([*self._lengths.values(), *cut_off], default=1)
        self._n_passes = 0
        self._finds_out = False

    def _find_out(self, n: int) -> None:
        """Once each layer that tells has begun another sample, the longest of theirs is one."""
        if self._began.keys() == self._lengths.keys() or n >= _MOST_WATCHED:
            self._length = max(self._lengths.values(), default=1)
            self._finds_out = False
