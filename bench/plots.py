"""Plots as SVG, without a library: bars of ratios, and lines over a logarithmic axis."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

_WIDTH = 760
_LABELS = 200  # where bars begin
_BAR, _GAP, _HEAD = 16, 5, 34
_LONGEST = 12.0  # a longer bar is cut off there; its number is not
_OURS, _OTHERS, _BARE, _GRID = "#1f6f8b", "#b9c2c9", "#6b7780", "#e4e8eb"


def bars(panels: Mapping[str, Mapping[str, float]]) -> str:
    """A panel for each kind of work, with a bar for each target's ratio to the bare handler."""
    parts, y, scale = list[str](), 10.0, (_WIDTH - _LABELS - 60) / _LONGEST
    for title, ratios in panels.items():
        parts.append(_text(10, y + 16, title, weight="bold"))
        y += _HEAD
        height = len(ratios) * (_BAR + _GAP)
        for at in range(0, int(_LONGEST) + 1, 2):
            x = _LABELS + at * scale
            parts.append(_line(x, y - 4, x, y + height, _GRID))
            parts.append(_text(x, y - 7, f"{at}", anchor="middle", size=10, color=_BARE))
        one = _LABELS + scale
        for name, ratio in ratios.items():
            width = min(ratio, _LONGEST) * scale
            color = _BARE if name.startswith("bare") else _OURS if name.startswith("Gatepost") else _OTHERS
            parts.append(f'<rect x="{_LABELS}" y="{y:.1f}" width="{width:.1f}" height="{_BAR}" fill="{color}"/>')
            parts.append(_text(_LABELS - 6, y + 12, name, anchor="end"))
            parts.append(_text(_LABELS + width + 5, y + 12, f"{ratio:.2f}"))
            y += _BAR + _GAP
        parts.append(_line(one, y - height - 4, one, y, _BARE, dashed=True))
        y += 12
    return _svg(parts, y)


@dataclass(frozen=True)
class Lines:
    """A plot of several lines: what is on each axis, and the points of each line by its name."""

    title: str
    below: str
    beside: str
    lines: Mapping[str, Sequence[tuple[float, float]]]


def lines(plots: Sequence[Lines]) -> str:
    """Plots beside each other, each with a logarithmic horizontal axis."""
    parts, width, height = list[str](), _WIDTH / len(plots), 220.0
    for number, plot in enumerate(plots):
        left, right = number * width + 50, (number + 1) * width - 16
        points = [point for line in plot.lines.values() for point in line]
        first, last = math.log10(min(x for x, _ in points)), math.log10(max(x for x, _ in points))
        top = _round_up(max(y for _, y in points))

        def at(x: float, y: float, left: float = left, right: float = right, first: float = first,
               last: float = last, top: float = top) -> tuple[float, float]:  # fmt: skip
            share = (math.log10(x) - first) / ((last - first) or 1)
            return left + share * (right - left), 40 + height * (1 - y / top)

        parts.append(_text(left - 40, 20, plot.title, weight="bold"))
        for step in range(5):
            _, y = at(10**first, top * step / 4)
            parts.append(_line(left, y, right, y, _GRID))
            parts.append(_text(left - 5, y + 4, f"{top * step / 4:g}", anchor="end", size=10, color=_BARE))
        for x in sorted({x for x, _ in points}):
            parts.append(_text(at(x, 0)[0], 40 + height + 15, _short(x), anchor="middle", size=10, color=_BARE))
        parts.append(
            _text((left + right) / 2, 40 + height + 32, f"{plot.below}; {plot.beside}", anchor="middle", size=11)
        )
        for name, line in plot.lines.items():
            color = _BARE if name.startswith("bare") else _OURS
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*point) for point in line))
            parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>')
            parts += [
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{color}"/>' for x, y in (at(*point) for point in line)
            ]
            x, y = at(*line[-1])
            parts.append(_text(x, y - 8, name, anchor="end", color=color))
    return _svg(parts, height + 90)


def _round_up(value: float) -> float:
    """The next number that is 1, 2, 4 or 8 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(power * step for step in (1, 2, 4, 8, 10) if power * step >= value)


def _short(value: float) -> str:
    return f"{value / 1e6:g}M" if value >= 1e6 else f"{value / 1e3:g}k" if value >= 1e3 else f"{value:g}"


def _text(
    x: float, y: float, text: str, anchor: str = "start", size: int = 12, weight: str = "normal", color: str = "#222"
) -> str:
    style = f'font-size="{size}" font-weight="{weight}" text-anchor="{anchor}" fill="{color}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, color: str, dashed: bool = False) -> str:
    dashes = ' stroke-dasharray="4 3"' if dashed else ""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{color}"{dashes}/>'


def _svg(parts: Sequence[str], height: float) -> str:
    size = f'viewBox="0 0 {_WIDTH} {height:.0f}" width="{_WIDTH}" height="{height:.0f}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif">'
    return "\n".join([head, f'<rect width="{_WIDTH}" height="{height:.0f}" fill="white"/>', *parts, "</svg>"]) + "\n"
