"""Where samples begin, as the layers of a model tell together."""


class Samples:
    """Believes a layer whose state is at rest once a sample.

    A sample has begun where the first layer of a forward pass says so. The layers after it are at
    rest until something has reached them: what they say then, again and again, is no new sample.
    But one that has left rest, and is there again while the first one is not called any more, is
    trained or evaluated by itself, as the layers of forward-forward learning are.
    """

    def __init__(self) -> None:
        self._first = ""  # the layer that was called first in this forward pass of the model
        self._n_forwards = -1
        self._n_begun = 0  # samples of that layer
        self._begun: dict[str, int] = {}  # by layer: which of them it has begun
        self._n_first_calls = 0
        self._moved_at: dict[str, int] = {}  # by layer: how many when it was not at rest, lately

    def begins(self, layer: str, starts: bool | str | None, *, n_forwards: int) -> bool | None:
        """Whether a call is the first time step of a sample; None where nobody tells.

        Args:
            layer: Name of the layer that is called.
            starts: What it says: yes, no, `"at rest"`, or None.
            n_forwards: Number of the model's forward pass.
        """
        if n_forwards != self._n_forwards:
            self._n_forwards = n_forwards
            if layer != self._first or starts is None:
                self._first, self._n_begun = layer, self._n_begun + 1
        if layer == self._first:
            self._n_begun += bool(starts)
            self._n_first_calls += 1
        if starts is False:
            self._moved_at[layer] = self._n_first_calls
        elif starts == "at rest":
            alone = self._moved_at.get(layer) == self._n_first_calls
            starts = alone or layer == self._first or self._begun.get(layer) != self._n_begun
        if starts:
            self._begun[layer] = self._n_begun
        return bool(starts) if starts is not None else None

    def forget(self, layer: str) -> None:
        """A layer is gone, or another one has its name."""
        self._begun.pop(layer, None)
        self._moved_at.pop(layer, None)
