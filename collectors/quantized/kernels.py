"""A weight of a layer, by where it is kept: in the module itself, or in one of its parts."""

from dataclasses import dataclass
from operator import attrgetter

from torch import Tensor, nn

from ..attributes import parametrizations, read


@dataclass(frozen=True)
class Kernel:
    """A weight that a module multiplies with.

    Attributes:
        layer: Name of the layer in every table.
        path: From the module in whose forward pass it is multiplied to the one that keeps it; ""
            where these are the same.
        attribute: Its name there.
        shape: Its shape, where it is only kept packed; else None.
        guess: Whether the module is none that usually has a weight, but happens to keep a matrix.
        plain: Whether it is a layer of torch's own. Its weights are quantized only if something
            writes them anew: before each forward pass, and back behind the backward pass.
    """

    layer: str
    path: str = ""
    attribute: str = "weight"
    shape: tuple[int, ...] | None = None
    guess: bool = False
    plain: bool = False

    def owner(self, module: nn.Module) -> nn.Module:
        """The module that keeps it.

        Args:
            module: In whose forward pass it is multiplied; or the replica of it that runs.
        """
        return attrgetter(self.path)(module) if self.path else module

    def latent(self, module: nn.Module) -> Tensor | None:
        """The full-precision weight, as it is kept; None where only a quantized one is."""
        kept = self.kept(module)
        return None if kept is None or is_wrapper(kept) else kept

    def after_step(self, module: nn.Module) -> tuple[Tensor, Tensor | None] | None:
        """The full-precision weight and its gradient, as the optimizer has left them.

        A weight that a hook makes anew before each forward pass (`torch.nn.utils`) is of before
        the step, and no leaf. A pruned one is what was pruned, with its mask; of another one it is
        not known, and None.
        """
        kept, owner = self.latent(module), self.owner(module)
        if kept is None or kept.is_leaf:
            return None if kept is None else (kept.detach(), kept.grad)
        whole = owner._parameters.get(f"{self.attribute}_orig")
        mask = owner._buffers.get(f"{self.attribute}_mask")
        if whole is None or mask is None:
            return None
        return whole.detach() * mask, whole.grad

    def kept(self, module: nn.Module) -> Tensor | None:
        """The weight as it is kept, in whatever precision; None where it is packed into bytes."""
        if self.shape is not None:
            return None
        owner = self.owner(module)
        if (parts := parametrizations(owner).get(self.attribute)) is not None:
            original = getattr(parts, "original", None)
            if isinstance(original, Tensor):
                return original
        weight = read(owner, self.attribute)
        return bare(weight) if isinstance(weight, Tensor) else None

    def outputs_first(self, module: nn.Module, weight: Tensor) -> Tensor:
        """A view with the outputs first, of a weight as the layer keeps it; or the way back."""
        owner = self.owner(module)
        swapped = isinstance(owner, nn.modules.conv._ConvTransposeNd) and owner.groups == 1
        return weight.transpose(0, 1) if swapped else weight


def bare(weight: Tensor) -> Tensor:
    """The tensor that a wrapper of a library's own type holds, if it holds just one like it."""
    inner = getattr(weight, "_data", None) if is_wrapper(weight) else None
    same = isinstance(inner, Tensor) and inner.shape == weight.shape and inner.dtype == weight.dtype
    return inner if same else weight


def is_wrapper(weight: Tensor) -> bool:
    """Whether it is of a type of some library's own, with operations of its own."""
    return not type(weight).__module__.startswith("torch.") and type(weight) is not Tensor
