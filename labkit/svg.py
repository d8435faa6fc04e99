"""Small drawings as inline SVG text: they follow JupyterLab's theme and need no library."""

from collections.abc import Sequence
from html import escape

WIDTH, HEIGHT, PAD = 480, 140, 34  # pixels


def curve(xs: Sequence[float], ys: Sequence[float], title: str, unit: str) -> str:
    """A line through (xs, ys) with its first and last value written on the axes.

    The alternative text is the title with both values. Every value must be finite.
    """
    if not xs:
        return f'<svg role="img" aria-label="{escape(title)}" width="{WIDTH}" height="1"></svg>'
    low, high = min(0.0, *ys), max(ys) or 1.0
    left, right = xs[0], max(xs[-1], xs[0] + 1)

    def place(x: float, y: float) -> str:
        across = PAD + (x - left) / (right - left) * (WIDTH - PAD - 8)
        return f"{across:.1f},{HEIGHT - 20 - (y - low) / (high - low) * (HEIGHT - 44):.1f}"

    finding = f"{title}: {ys[0]:.3g} at first, {ys[-1]:.3g} at last ({xs[-1]:g} {unit})"
    points = " ".join(place(x, y) for x, y in zip(xs, ys, strict=True))
    text = 'fill="currentColor" font-size="11" font-family="sans-serif"'
    return (
        f'<svg role="img" aria-label="{escape(finding)}" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" style="max-width:100%">'
        f'<text x="{PAD}" y="14" {text}>{escape(title)}</text>'
        f'<line x1="{PAD}" x2="{WIDTH - 8}" y1="{HEIGHT - 20}" y2="{HEIGHT - 20}" '
        'stroke="currentColor" opacity="0.4"/>'
        f'<text x="2" y="30" {text}>{high:.2g}</text>'
        f'<text x="2" y="{HEIGHT - 18}" {text}>{low:.2g}</text>'
        f'<text x="{PAD}" y="{HEIGHT - 5}" {text}>{left:g}</text>'
        f'<text x="{WIDTH - 8}" y="{HEIGHT - 5}" text-anchor="end" {text}>{xs[-1]:g} {unit}</text>'
        f'<polyline points="{points}" fill="none" stroke="#0072B2" stroke-width="2"/></svg>'
    )
