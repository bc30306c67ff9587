"""Curves as SVG."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

WIDTH, HEIGHT, LEFT, BOTTOM = 460, 220, 56, 22


def chart(curves: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """An SVG of {colour: [(x, y), ...]}: values as dots, their running mean as a line, both axes from data to data."""
    every = np.array([point for points in curves.values() for point in points], float)
    (x0, y0), (x1, y1) = every.min(0), every.max(0)
    x1, y1 = x1 if x1 > x0 else x0 + 1, y1 if y1 > y0 else y0 + (abs(y0) or 1)

    def place(x: float, y: float) -> tuple[float, float]:
        return LEFT + (x - x0) / (x1 - x0) * (WIDTH - LEFT - 8), 8 + (y1 - y) / (y1 - y0) * (HEIGHT - BOTTOM - 16)

    shapes = []
    for value in np.linspace(y0, y1, 4):
        y = place(x0, value)[1]
        shapes.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - 8}" stroke="#e5e5e5"/>')
        shapes.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.3g}</text>')
    for value, anchor in ((x0, "start"), (x1, "end")):
        shapes.append(f'<text x="{place(value, y0)[0]:.1f}" y="{HEIGHT - 4}" text-anchor="{anchor}">{value:g}</text>')
    for colour, points in curves.items():
        dots = points if len(points) <= 300 else points[:: math.ceil(len(points) / 300)]
        for x, y in (place(*point) for point in dots):
            shapes.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="1.6" fill="{colour}" opacity=".35"/>')
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*p) for p in _smooth(points)))
        shapes.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.8"/>')
    return f'<svg width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}">{"".join(shapes)}</svg>'


def _smooth(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Means over up to a twentieth of the points, around each of at most 200 of them."""
    x, y = np.array(points, float).T
    reach = max(1, len(y) // 40)
    total = np.concatenate([[0], np.cumsum(y)])
    places = np.unique(np.linspace(0, len(y) - 1, min(200, len(y))).round().astype(int))
    return [
        (x[k], (total[min(len(y), k + reach + 1)] - total[max(0, k - reach)]) / (min(len(y), k + reach + 1) - max(0, k - reach)))
        for k in places
    ]
