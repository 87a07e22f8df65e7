"""Lines against time, as an SVG file."""

from __future__ import annotations

import math
from html import escape

Line = list[tuple[float, float]]
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe and Ito: told apart by all
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 280, 56, 16, 32, 40


def smooth(line: Line, points: int = 120) -> Line:
    """The means of as many stretches of a long line."""
    size = max(1, len(line) // points)
    parts = [line[i : i + size] for i in range(0, len(line), size)]
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts]


def _ticks(low: float, high: float) -> list[float]:
    step = 10.0 ** math.floor(math.log10((high - low) / 4))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= 5)
    return [round(i * step, 10) for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _panel(top: int, title: str, lines: dict[str, Line], least: float) -> list[str]:
    ys = [y for line in lines.values() for _, y in line]
    right = max(x for line in lines.values() for x, _ in line) or 1.0
    low = max(least, min(ys))
    high = max(max(ys), low + 1e-9)

    def at(x: float, y: float) -> tuple[float, float]:
        across = LEFT + x / right * (WIDTH - LEFT - RIGHT)
        return across, top + TOP + (high - max(y, low)) / (high - low) * (HEIGHT - TOP - BOTTOM)

    parts = [f'<text x="{LEFT}" y="{top + 20}" font-weight="bold">{escape(title)}</text>']
    for tick in _ticks(low, high):
        y = at(0, tick)[1]
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for tick in _ticks(0, right):
        x = at(tick, 0)[0]
        parts.append(f'<text x="{x:.1f}" y="{top + HEIGHT - BOTTOM + 18}" text-anchor="middle">{tick:g} s</text>')
    for colour, line in zip(COLOURS, lines.values()):
        points = " ".join("{:.1f},{:.1f}".format(*at(x, y)) for x, y in line)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
    for i, (colour, name) in enumerate(zip(COLOURS, lines)):
        x = WIDTH - RIGHT - 110 * (len(lines) - i)
        parts.append(f'<rect x="{x}" y="{top + 11}" width="10" height="10" fill="{colour}"/>')
        parts.append(f'<text x="{x + 14}" y="{top + 20}">{escape(name)}</text>')
    return parts


def svg(panels: dict[str, dict[str, Line]], least: dict[str, float]) -> str:
    """One panel a title, one line a name. What is less than the least of its panel is drawn at its edge."""
    height = HEIGHT * len(panels)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"'
    parts = [head + ' font-family="sans-serif" font-size="12">', '<rect width="100%" height="100%" fill="#fff"/>']
    for i, (title, lines) in enumerate(panels.items()):
        parts += _panel(i * HEIGHT, title, lines, least.get(title, 0))
    return "\n".join([*parts, "</svg>", ""])
