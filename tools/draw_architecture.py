"""Draw docs/images/architecture.svg: the packages on their floors, with the imports as arrows.

An arrow that follows from two others is left out: if nodes imports capture and capture imports
io, then nodes may import io too, without an arrow of its own.
"""

from __future__ import annotations

import sys
from pathlib import Path

import house

IMAGE = house.ROOT / "docs" / "images" / "architecture.svg"
_WIDTH, _FLOOR_HEIGHT, _BOX_HEIGHT, _LEFT = 900, 84, 40, 70  # px
_COLORS = (
    "#e8eaf6",
    "#e3f2fd",
    "#e0f2f1",
    "#f1f8e9",
    "#fff8e1",
    "#fbe9e7",
    "#fce4ec",
    "#f3e5f5",
)


def main() -> None:
    """Write the image."""
    IMAGE.write_text(draw())


def draw() -> str:
    """The image as SVG text."""
    imports = {package: set(used) for package, used in house.package_imports().items()}
    floors: dict[int, list[str]] = {}
    for package, (floor, _) in house.FLOORS.items():
        floors.setdefault(floor, []).append(package)
    top = max(floors)
    height = _FLOOR_HEIGHT * (top + 1) + 8
    boxes: dict[
        str, tuple[float, float, float]
    ] = {}  # left, top and width of every package
    shapes = list[str]()
    for floor, packages in floors.items():
        row = 4 + _FLOOR_HEIGHT * (top - floor)
        shapes.append(
            f"<rect x='4' y='{row}' width='{_WIDTH - 8}' height='{_FLOOR_HEIGHT - 4}' rx='6'"
            f" fill='{_COLORS[floor]}'/>"
            f"<text x='14' y='{row + 44}' fill='#546e7a'>floor {floor}</text>"
        )
        slot = (_WIDTH - _LEFT - 10) / len(packages)
        # boxes of neighbouring floors stand beside each other, so that arrows pass between them
        shift = 40 if floor % 2 else -40
        for column, package in enumerate(packages):
            width = 9.0 * len(package) + 24
            center = _LEFT + slot * (column + 0.5) + (shift if len(packages) < 3 else 0)
            boxes[package] = (center - width / 2, row + 20, width)
    arrows = list[str]()
    for package, used in imports.items():
        for target in sorted(used):
            if not any(target in _reachable(other, imports) for other in used - {target}):
                arrows.append(_arrow(boxes[package], boxes[target]))
    for package, (x, y, width) in boxes.items():
        shapes.append(
            f"<rect x='{x:.0f}' y='{y:.0f}' width='{width:.0f}' height='{_BOX_HEIGHT}' rx='5'"
            " fill='#fff' stroke='#78909c'/>"
            f"<text x='{x + width / 2:.0f}' y='{y + 25:.0f}' text-anchor='middle'"
            f" font-weight='600'>{package}</text>"
        )
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {_WIDTH} {height}'"
        " font-family='sans-serif' font-size='14'>"
        "<defs><marker id='tip' viewBox='0 0 8 8' refX='8' refY='4' markerWidth='8'"
        " markerHeight='8' orient='auto'><path d='M0 0L8 4L0 8z' fill='#455a64'/></marker></defs>"
        + "\n".join([*shapes, *arrows])
        + "</svg>\n"
    )


def _reachable(start: str, imports: dict[str, set[str]]) -> set[str]:
    """All packages that `start` imports, directly or through others."""
    reached = set[str]()
    waiting = [start]
    while waiting:
        new = imports[waiting.pop()] - reached
        reached |= new
        waiting += new
    return reached


def _arrow(source: tuple[float, float, float], target: tuple[float, float, float]) -> str:
    """A line from the lower edge of one box to the upper edge of another."""
    x1, y1 = source[0] + source[2] / 2, source[1] + _BOX_HEIGHT
    x2, y2 = target[0] + target[2] / 2, target[1]
    return (
        f"<line x1='{x1:.0f}' y1='{y1:.0f}' x2='{x2:.0f}' y2='{y2:.0f}' stroke='#455a64'"
        " stroke-opacity='0.6' marker-end='url(#tip)'/>"
    )


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
