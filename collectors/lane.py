"""Which of a layer's callers is read, where replicas of it run side by side."""

from threading import get_ident

from torch import device


class Lane:
    """Takes the calls on one device and, within a step, from one thread.

    DataParallel runs replicas of a module at once, in threads and on devices of their own. Their
    counters cannot be added up without a transfer, nor their time steps told apart, so that one
    replica's share of the batch stands for all: a sample, and counted as no more than that.
    """

    def __init__(self) -> None:
        self._device: device | None = None
        self._thread: int | None = None
        self._elsewhere: device | None = None

    def takes(self, where: device, *, again: bool) -> bool:
        """Whether a call on this device, by this thread, is read.

        One that is made `again` comes from a thread of the backward pass.
        """
        if self._device is None:
            self._device = where
        if where != self._device:
            self._elsewhere = where
            return False
        if again:
            return True
        if self._thread is None:
            self._thread = get_ident()
        return self._thread == get_ident()

    def end(self) -> bool:
        """The step ends.

        Returns:
            Whether the model has moved to another device, which is taken from now on.
        """
        moved = self._thread is None and self._elsewhere is not None
        if moved:
            self._device = self._elsewhere
        self._thread = self._elsewhere = None
        return moved
