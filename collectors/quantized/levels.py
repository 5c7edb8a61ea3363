"""Is a tensor made of a few levels: {0, 1}, {−1, 0, 1}, ±α times those, or more of them?

Never by counting unique values: a straight-through estimator `w + (q − w).detach()` leaves seven
unique values in a ternary tensor (relative error 2.3e-7 in fp32, 7.6e-3 in bf16).

A weight is judged by a sample of blocks, so that it takes as long for 100 million weights as for
ten thousand, and needs no memory to speak of.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


Granularity = Literal["tensor", "row", "group"]
Form = Literal["ternary", "binary", "n-bit", "empty", "full"]
# A sample by what shares levels: sorted, [those that share them, elements]; size of a group, or 0.
_Shape = tuple[Granularity, Tensor, int]

# Relative tolerance of a level, measured on straight-through estimators, by bytes an element.
_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 2e-2}
_GROUPS = (128, 96, 64, 32)
# So many nonzero elements on average have to share a level before that is no coincidence.
_MIN_SHARING = 2
_BLOCK = 384  # a multiple of every group
_N_BLOCKS = 12
_MORE_BLOCKS = 1024  # where nearly all weights of a sample are 0
_ZERO = 1e-3  # of the largest level: where it is exact, 0 is 0 whatever the type
_FEW_LEVELS = 16
_BITS = (1, 2, 3, 4, 8)
_GRID_ERROR = 0.02
# The two nearest levels of a short row may be so many steps of its grid apart.
_MOST_PARTS = 16
# Levels that have to be on a grid by no choice of it, all rows together: 0.04⁸ by coincidence.
_MIN_ON_GRID = 8
# Fewer nonzero weights of a sample may be of one sign by chance, where half of all are negative.
_MIN_SIGNED = 32


@dataclass(frozen=True)
class Levels:
    """What levels the weights of a layer have.

    Attributes:
        form: `ternary` (a negative, a middle and a positive level), `binary` (two of opposite
            signs), `n-bit` (others: 0 and one more, as in a mask, or a one-hot table; or more of
            them), `empty` (no weight differs from 0, or one is not a number: nothing can be said),
            `full` (no levels).
        granularity: What shares its levels: the tensor, a row, or a group within a row.
        n_levels: Levels of what shares them; of a fine grid, those that it has room for.
        shifted: Whether the middle level of ternary weights is not 0 (DLT, SEQ).
        group: Size of a group; 0 without groups.
    """

    form: Form
    granularity: Granularity | None = None
    n_levels: int = 0
    shifted: bool = False
    group: int = 0

    @property
    def is_mask(self) -> bool:
        """Whether the weights are 0 or one other value."""
        return self.form == "n-bit" and self.n_levels == 2

    @property
    def bits(self) -> float | None:
        """Bits a weight: log2 3 for ternary weights; None in full precision."""
        if self.form == "ternary":
            return math.log2(3)
        if self.form == "binary":
            return 1.0
        return float(_bits(self.n_levels)) if self.form == "n-bit" else None

    def __str__(self) -> str:
        """In words, such as `2 bit, a scale a row`."""
        if self.granularity is None:
            return "full precision" if self.form == "full" else "all weights are 0"
        scale = {"tensor": "one scale", "row": "a scale a row", "group": "a scale a group"}
        what = {
            "ternary": "the middle level is not 0, " if self.shifted else "",
            "binary": "binary, ",
            "n-bit": f"{_bits(self.n_levels)} bit, ",
        }
        return what[self.form] + scale[self.granularity]


FULL, EMPTY = Levels("full"), Levels("empty")


def judge(weight: Tensor, *, stacked: bool = False) -> Levels:
    """What levels weights have, by a sample of them.

    Args:
        weight: Shape (out, *); rows weight[i], or groups of 128, 96, 64 or 32 neighbours in a row,
            may have scales of their own.
        stacked: Whether it is a stack of matrices, (n, out, in), whose rows are weight[k, i].
    """
    blocks = _blocks(weight, _N_BLOCKS, stacked=stacked)
    found = _judge(blocks)
    too_few = found.is_mask and int(blocks.count_nonzero()) < _MIN_SIGNED
    if (found.form == "empty" or too_few) and weight.numel() > blocks.numel():
        return _judge(_blocks(weight, _MORE_BLOCKS, stacked=stacked))
    return found


def may_have_levels(weight: Tensor) -> bool:
    """A first glance: whether a block of weights has few values, unlike full precision.

    Args:
        weight: Shape (out, *).
    """
    rows = _blocks(weight, 1).sort(1).values
    n_levels = _n_levels(rows, _TOLERANCE.get(rows.dtype, 1e-5))
    return n_levels <= min(_FEW_LEVELS, rows.shape[1] // 2)


def ternary_granularity(weight: Tensor) -> Granularity | None:
    """How weights are ternary, if they are: see `judge`."""
    found = judge(weight)
    return found.granularity if found.form in ("ternary", "binary") else None


def blocks_of(weight: Tensor, n_blocks: int = _N_BLOCKS, *, stacked: bool = False) -> Tensor:
    """Blocks of neighbours, evenly spread over the rows: [blocks, size], in their own type.

    The same places for every tensor of a shape, so that two of them can be compared.
    """
    x = weight.detach()
    x = x.reshape(1, -1) if x.dim() < 2 else x
    n_rows = len(x) * (x.shape[1] if stacked else 1)
    size = x.numel() // n_rows
    block = min(size, _BLOCK)
    n = max(1, min(n_rows, n_blocks * _BLOCK // block))
    # Blocks at different places in their rows, or all would see the same inputs.
    n_places = size // block
    per_row = max(1, min(n_places, n_blocks // n))
    parts = []
    for k in range(per_row):
        for i in range(n) if n_places > 1 else (None,):
            if i is None:
                some = torch.arange(0, n_rows, -(-n_rows // n), device=x.device)
                parts.append(_rows(x, some, stacked=stacked))
            else:
                place = (i * per_row + k) * 7 % n_places
                k = i * n_rows // n
                row = x[divmod(k, x.shape[1])] if stacked else x[k].flatten()
                parts.append(row[place * block : (place + 1) * block].unsqueeze(0))
    return torch.cat(parts)


def _rows(x: Tensor, chosen: Tensor, *, stacked: bool) -> Tensor:
    if stacked:  # its rows are no view where the matrices are kept transposed
        return x[chosen // x.shape[1], chosen % x.shape[1]]
    return x[chosen].flatten(1)


def _blocks(weight: Tensor, n_blocks: int, *, stacked: bool = False) -> Tensor:
    blocks = blocks_of(weight, n_blocks, stacked=stacked)
    # Of a type whose rounding is known: on the host a sort of so few takes a tenth of a millisecond
    return blocks.cpu() if blocks.is_floating_point() else blocks.cpu().float()


def _judge(blocks: Tensor) -> Levels:
    tolerance = _TOLERANCE.get(blocks.dtype, 1e-5)
    if blocks.dtype.itemsize < 4:
        blocks = blocks.float()
    if not bool(blocks.isfinite().all()) or not bool(blocks.any()):
        return EMPTY
    shapes = list(_shapes(blocks))
    # Few levels of a row in common may be those of its groups, each with fewer of its own: three
    # are told by being so few, more of them by being on one grid.
    for most, on_grid in ((3, False), (_FEW_LEVELS, True), (_FEW_LEVELS, False)):
        # What shares fewest of them has the fewest levels: it is asked first.
        if _n_levels(shapes[-1][1], tolerance) > most:
            continue
        for i, (granularity, rows, group) in enumerate(shapes):
            found = _few_levels(rows, tolerance, most)
            if found is not None and (not on_grid or _even(rows, tolerance)):
                if most > 3 and (whole := _on_common_grid(rows, shapes[:i])):
                    return whole
                return Levels(found[0], granularity, found[1], found[2], group)
    if not _grid(shapes[-1][1].double()):
        return FULL
    for granularity, rows, group in shapes:
        n_levels = _grid(rows.double())
        if n_levels:
            return Levels("n-bit", granularity, n_levels, group=group)
    return FULL


def _shapes(blocks: Tensor) -> Iterator[_Shape]:
    """The sample by what may share its levels, sorted: [those that share them, elements]."""
    size = blocks.shape[1]
    yield "tensor", blocks.reshape(1, -1).sort(1).values, 0
    if len(blocks) > 1:
        yield "row", blocks.sort(1).values, 0
    for group in _GROUPS:
        if size % group == 0 and size > group:
            yield "group", blocks.reshape(-1, group).sort(1).values, group


def _begins(ordered: Tensor, tolerance: float) -> Tensor:
    """Where a new level begins in sorted rows."""
    reach = tolerance * ordered[:, [0, -1]].abs().amax(1, keepdim=True)
    begins = ordered.diff(dim=1, prepend=ordered[:, :1] - 1 - 2 * reach) > reach
    # Values that are dense follow each other closely and are no level for that.
    begin = ordered.where(begins, -torch.inf).cummax(1).values
    return begins | (ordered - begin > reach)


def _n_levels(ordered: Tensor, tolerance: float) -> int:
    return int(_begins(ordered, tolerance).sum(1).max())


def _few_levels(ordered: Tensor, tolerance: float, most: int) -> tuple[Form, int, bool] | None:
    """Form, number and shift of the levels that each row has, where they are at most `most`."""
    begins = _begins(ordered, tolerance)
    n_levels = int(begins.sum(1).max())
    if n_levels > most or n_levels * 2 > ordered.shape[1]:
        return None
    largest = ordered[:, [0, -1]].abs().amax(1, keepdim=True)
    zero = ordered.abs() <= _ZERO * largest
    n_nonzero, n_shared = int((~zero).sum()), int((begins & ~zero).sum())
    if n_nonzero < _MIN_SHARING * n_shared:
        return None
    if n_levels > 3:
        return "n-bit", n_levels, False
    live = largest.squeeze(1) > 0
    ordered, zero = ordered[live], zero[live]
    low, high = ordered[:, 0], ordered[:, -1]
    if n_levels < 3:
        return _two_levels(low, high, zero)
    return _three_levels(ordered, low, high, tolerance)


def _two_levels(low: Tensor, high: Tensor, zero: Tensor) -> tuple[Form, int, bool] | None:
    if bool(zero.any()):
        # One row may lack a sign, but not all of them the same one.
        both = bool((low < 0).any()) and bool((high > 0).any())
        return ("ternary", 3, False) if both else ("n-bit", 2, False)
    if bool((low == high).all()):
        return None  # one value, such as the one that it began with
    return ("binary", 2, False) if bool(((low < 0) & (high > 0)).all()) else ("n-bit", 2, False)


def _three_levels(
    ordered: Tensor, low: Tensor, high: Tensor, tolerance: float
) -> tuple[Form, int, bool]:
    """One negative level, zeros and one positive one; or three at equal distances."""
    reach = torch.maximum(low.abs(), high.abs()).unsqueeze(1)
    at_zero = ordered.abs() <= _ZERO * reach
    above = (ordered - high.unsqueeze(1)).abs() <= tolerance * reach
    below = (ordered - low.unsqueeze(1)).abs() <= tolerance * reach
    signs = ((low <= 0) | at_zero.any(1)) & ((high >= 0) | at_zero.any(1))
    if bool((at_zero | (above & (ordered > 0)) | (below & (ordered < 0))).all()) and bool(
        signs.all()
    ):
        return "ternary", 3, False
    middle = ((low + high) / 2).unsqueeze(1)
    at_middle = (ordered - middle).abs() <= max(tolerance, _ZERO) * reach
    if bool((at_middle | above | below).all()):
        return "ternary", 3, True
    return "n-bit", 3, False


def _even(ordered: Tensor, tolerance: float) -> bool:
    """Whether the few levels of each row are on an even grid of its own."""
    places = ordered - ordered[:, :1]
    places /= places[:, -1:].clamp(min=torch.finfo(places.dtype).tiny)
    error = _GRID_ERROR + tolerance * _FEW_LEVELS / 4  # rounding, in steps
    fits = [_on_steps(places * n, error) for n in range(1, _FEW_LEVELS)]
    return bool(torch.stack(fits).any(0).all())


def _on_common_grid(rows: Tensor, wider: Sequence[_Shape]) -> Levels | None:
    """Levels of what holds several rows, each with few of them, on one grid with the same step.

    Rows whose scales are each other's multiples are on one grid as well, but some skip its steps.
    """
    ordered = rows.double()
    smallest, n_levels = _smallest_gap(ordered), _apart(ordered).sum(1) + 1
    telling = 2 * n_levels > n_levels.max()  # of a few levels none may be next to each other
    for granularity, whole, group in wider:
        whole = whole.double()
        n_steps = _n_steps(whole)
        if n_steps is None:
            continue
        step = ((whole[:, -1:] - whole[:, :1]) / n_steps).repeat_interleave(len(rows) // len(whole))
        if bool((smallest.squeeze(1) < 1.5 * step)[telling].all()):
            return Levels("n-bit", granularity, round(float(n_steps.max())) + 1, group=group)
    return None


def _grid(ordered: Tensor) -> int:
    """Levels of an even grid that all rows are on, each with a step of its own; 0 if they are not.

    A row of the sample hardly ever has the outermost levels; those in use say how many there are.
    """
    n_steps = _n_steps(ordered)
    return 0 if n_steps is None else round(float(n_steps.max())) + 1


def _n_steps(ordered: Tensor) -> Tensor | None:
    """Of how many steps of its grid each row is wide; [rows, 1], 0 where all of it is alike."""
    span = ordered[:, -1:] - ordered[:, :1]
    live = span.squeeze(1) > 0
    every = torch.zeros_like(span)
    ordered, span = ordered[live], span[live]
    # A row's first level, its last one and its step are chosen to fit.
    if int((_apart(ordered).sum(1) - 2).clamp(min=0).sum()) < _MIN_ON_GRID:
        return None
    smallest = _smallest_gap(ordered)
    places = (ordered - ordered[:, :1]) / span
    n_steps = torch.full_like(span, torch.inf)
    for part in range(1, _MOST_PARTS + 1):
        # Whole, or an error of the smallest gap would grow from step to step.
        n = (span * part / smallest).round()
        open_ = n_steps.isinf()
        if not bool(open_.any()) or bool((n[open_] >= 2 ** _BITS[-1]).any()):
            break
        n_steps = n_steps.where(~(open_ & _on_steps(places * n, _GRID_ERROR).unsqueeze(1)), n)
    every[live] = n_steps
    return every if bool(n_steps.isfinite().all()) else None


def _apart(ordered: Tensor) -> Tensor:
    """Which neighbours in sorted rows are not two copies of one level."""
    return ordered.diff(dim=1) > 1e-4 * (ordered[:, -1:] - ordered[:, :1])


def _smallest_gap(ordered: Tensor) -> Tensor:
    """Between two levels of a row: [rows, 1]."""
    return ordered.diff(dim=1).where(_apart(ordered), torch.inf).amin(1, keepdim=True)


def _on_steps(places: Tensor, error: float) -> Tensor:
    """Whether all places of a row are whole numbers: bool [rows]."""
    return ((places - places.round()).abs() < error).all(1)


def _bits(n_levels: int) -> int:
    return next((b for b in _BITS if 2**b >= n_levels), _BITS[-1])
