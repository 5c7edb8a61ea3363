"""Work that nobody is to hear: neither what the user listens with, nor what we do ourselves.

Modes see each operation on tensors, also those within a hook. A counter of FLOPs would count ours;
a selective checkpoint would keep their results, by their number, for operations of the user's.
"""

from collections.abc import Generator
from contextlib import contextmanager

import torch
from torch.utils._python_dispatch import _disable_current_modes


@contextmanager
def unheard() -> Generator[None]:
    """Within, no mode of torch's functions and dispatcher is active."""
    with torch._C.DisableTorchFunction():
        if not torch._C._len_torch_dispatch_stack():
            yield
        else:
            with _disable_current_modes():
                yield
