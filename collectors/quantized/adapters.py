"""Asking a layer for its quantized weight, where the product with it was not seen.

By what it offers, never by the name of its class: nothing is imported for it. A quantizer is a copy
of the layer's own, so that what it counts is not counted twice, and the random numbers of the
training are left as they were.
"""

import contextlib
import copy
import re
from collections.abc import Generator
from typing import Any

import torch
from torch import Tensor, nn

from ..attributes import parametrizations, read


# Submodules that quantize a weight: of torch.ao, torchao, AngelSlim, LSQ, and others.
QUANTIZERS = (
    "weight_fake_quant", "weight_fake_quantizer", "weight_quantizer", "quan_w_fn", "weight_quant",
    "quantize_weight", "w_quantizer", "weight_quantize_fn",
)  # fmt: skip
_METHODS = ("quant_weight", "quantized_weight", "get_quantized_weight")
# Names of the lowest and the highest whole number that a quantizer rounds to.
_RANGES = (("quant_min", "quant_max"), ("thd_neg", "thd_pos"))
_PER_BYTE = 4


def ask(module: nn.Module, name: str = "weight") -> Tensor | None:
    """The quantized weight that a layer tells, shape (out, *); None where it has no way to.

    Args:
        module: The layer.
        name: Name of its latent weight.
    """
    if torch.compiler.is_compiling():
        return None
    if name in parametrizations(module):
        with _same_random_numbers(module):
            return _tensor(getattr(module, name))
    if name != "weight":
        return None
    packed = unpacked(module)
    if packed is not None:
        return packed
    told = read(module, "qweight")
    if told is not None and (found := _tensor(told)) is not None:
        return found
    method = next((m for n in _METHODS if callable(m := read(module, n))), None)
    quantizer = _quantizer(module)
    if isinstance(read(module, "weight"), Tensor):
        with _same_random_numbers(module):
            if method is not None:
                twin = copy.deepcopy(module)
                return _tensor(getattr(twin, method.__name__)())
            if isinstance(quantizer, nn.Module):
                return _tensor(copy.deepcopy(quantizer)(module.weight))
    return None


def told_levels(module: nn.Module) -> int | None:
    """Levels that a layer's quantizer says its weights may have; None where it does not say.

    The outermost one may be so rare that a sample of the weights has none on it.
    """
    quantizer = _quantizer(module)
    for names in _RANGES:
        low, high = (read(quantizer, name) for name in names)
        if isinstance(low, int) and isinstance(high, int):
            return high - low + 1
    dtype = read(read(quantizer, "config"), "dtype")
    bits = re.fullmatch(r"(?:.*\.)?u?int(\d+)", str(dtype), re.IGNORECASE)
    return 2 ** int(bits[1]) if bits else None


def _quantizer(module: nn.Module) -> Any:
    return next((q for n in QUANTIZERS if callable(q := read(module, n))), None)


def unpacked(module: nn.Module) -> Tensor | None:
    """Ternary weights of a layer that keeps four of them in a byte: 0, 1 and 2 for −1, 0 and +1.

    Row i of the first quarter is in bits 0 and 1 of byte i, of the next one in bits 2 and 3, …
    """
    kept = kept_weight(module)
    if kept is None or kept.dtype != torch.uint8 or packed_shape(module) is None:
        return None
    quarters = [(kept >> (2 * k) & 3).to(torch.int8) - 1 for k in range(_PER_BYTE)]
    return torch.cat(quarters)


def kept_weight(module: nn.Module) -> Tensor | None:
    """What a module keeps as `weight`, a buffer or a parameter."""
    # Where a ScriptModule keeps them, that is no dictionary.
    places = (module._buffers, module._parameters)
    return next((place["weight"] for place in places if "weight" in place), None)


def packed_shape(module: nn.Module) -> tuple[int, int] | None:
    """Shape of such a layer's weights, once unpacked."""
    kept = kept_weight(module)
    if (
        kept is None
        or kept.dtype != torch.uint8
        or kept.dim() != 2
        or "weight_scale" not in {**module._buffers, **module._parameters, **vars(module)}
    ):
        return None
    return _PER_BYTE * kept.shape[0], kept.shape[1]


def _tensor(told: Any) -> Tensor | None:
    """The plain tensor in what a library tells."""
    if not isinstance(told, Tensor):
        told = getattr(told, "value", None)
    if not isinstance(told, Tensor):
        return None
    plain = type(told).__module__.startswith("torch.") or type(told) is Tensor
    return (told if plain else told.dequantize()).detach()


@contextlib.contextmanager
def _same_random_numbers(module: nn.Module) -> Generator[None]:
    """Leave the training's random numbers as they are: a quantizer may draw some."""
    devices = {p.device for p in module.parameters() if p.is_cuda}
    with torch.random.fork_rng(devices=[d.index for d in devices if d.index is not None]):
        yield
