"""Pictures as SVG text: lines over steps, bars of alerts. Nothing is fetched, no script runs."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape


WIDTH, HEIGHT = 640, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 12, 10, 24
_ROW = 22
# Okabe & Ito (2008): to be told apart with any colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8A6D00", "#5B5B5B")

Point = tuple[int, float]


@dataclass(frozen=True)
class Line:
    """One layer's figure over the steps."""

    name: str
    points: Sequence[Point]


@dataclass(frozen=True)
class Bar:
    """One alert's time; `css` is a class of the page."""

    label: str
    begin: int
    end: int
    css: str
    title: str


def lines(drawn: Sequence[Line], *, title: str, log: bool = False, percent: bool = False) -> str:
    """Lines over steps; points that are not finite, or not positive on a log axis, are left out."""
    kept = [
        Line(x.name, [(s, y) for s, y in x.points if math.isfinite(y) and (y > 0 or not log)])
        for x in drawn
    ]
    kept = [x for x in kept if x.points]
    if not kept:
        return ""
    steps = [s for x in kept for s, _ in x.points]
    values = [math.log10(y) if log else y for x in kept for _, y in x.points]
    low, high = _widened(min(values), max(values))
    if percent:
        low, high = 0.0, max(high, 0.01)
    across = _scale(min(steps), max(steps), _LEFT, WIDTH - _RIGHT)
    up = _scale(low, high, HEIGHT - _BOTTOM, _TOP)
    parts = [
        _open(title, HEIGHT),
        *_axes(low, high, min(steps), max(steps), across, up, log, percent),
    ]
    for i, line in enumerate(kept):
        colour = COLOURS[i % len(COLOURS)]
        dash = ' stroke-dasharray="5 3"' if (i // len(COLOURS)) % 2 else ""
        points = [(across(s), up(math.log10(y) if log else y)) for s, y in line.points]
        if len(points) == 1:
            x, y = points[0]
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{colour}"/>')
            continue
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"{dash}>'
            f"<title>{escape(line.name)}</title></polyline>"
        )
    return "".join(parts) + "</svg>"


def bars(drawn: Sequence[Bar], *, title: str, last_step: int) -> str:
    """When each alert began and ended."""
    left, height = 250, _ROW * len(drawn) + _BOTTOM
    across = _scale(0, max(last_step, 1), left, WIDTH - _RIGHT)
    parts = [_open(title, height)]
    parts += [
        f'<line x1="{across(step):.1f}" x2="{across(step):.1f}" y1="0" y2="{height - _BOTTOM}" '
        f'class="grid"/><text x="{across(step):.1f}" y="{height - 8}" text-anchor="middle">'
        f"{step:g}</text>"
        for step in _ticks(0, max(last_step, 1))
    ]
    for i, bar in enumerate(drawn):
        begin, end = across(bar.begin), across(bar.end)
        parts.append(
            f'<text x="0" y="{i * _ROW + 15}">{escape(_short(bar.label))}</text>'
            f'<rect x="{begin:.1f}" y="{i * _ROW + 4}" width="{max(2.0, end - begin):.1f}" '
            f'height="{_ROW - 8}" rx="2" class="{bar.css}"><title>{escape(bar.title)}</title>'
            "</rect>"
        )
    return "".join(parts) + "</svg>"


def _open(title: str, height: int) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title, quote=True)}" '
        'xmlns="http://www.w3.org/2000/svg">'
    )


def _axes(
    low: float, high: float, first: int, last: int,
    across: Callable[[float], float], up: Callable[[float], float], log: bool, percent: bool,
) -> list[str]:  # fmt: skip
    parts = []
    for value in _ticks(low, high):
        y = up(value)
        text = f"1e{value:g}" if log else f"{100 * value:g} %" if percent else f"{value:g}"
        parts.append(
            f'<line x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>'
            f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{text}</text>'
        )
    return parts + [
        f'<text x="{across(step):.1f}" y="{HEIGHT - 6}" text-anchor="middle">{step:g}</text>'
        for step in _ticks(first, last)
    ]


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers from low to high."""
    span = high - low
    if span <= 0:
        return [low]
    size = 10 ** math.floor(math.log10(span / 4))
    size *= next(m for m in (1, 2, 5, 10) if span / (size * m) <= 6)
    first = math.ceil(low / size - 1e-9)
    return [round(i * size, 12) for i in range(first, math.floor(high / size + 1e-9) + 1)]


def _scale(low: float, high: float, begin: float, end: float) -> Callable[[float], float]:
    span = (high - low) or 1.0
    return lambda value: begin + (value - low) / span * (end - begin)


def _widened(low: float, high: float) -> tuple[float, float]:
    if low == high:
        return low - (abs(low) or 1.0) * 0.1, high + (abs(high) or 1.0) * 0.1
    return low, high


def _short(label: str) -> str:
    return label if len(label) <= 40 else f"{label[:22]}…{label[-17:]}"
