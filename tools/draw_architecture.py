"""Draw docs/pictures/architecture.svg: every module at its level, as test/test_architecture.py has them."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_WIDTH, _BOX, _GAP, _ROW = 900, 24, 6, 32  # px
_LETTER = 7.0  # px, width of one
_COLOURS = ("#e8eaf6", "#e3f2fd", "#e0f2f1", "#f1f8e9", "#fff8e1", "#fbe9e7")


def main() -> None:
    sys.path.insert(0, str(ROOT / "test"))
    from test_architecture import FILES, LEVELS, own_imports  # the picture shows what that test holds

    modules = sorted({name.split(".")[0] for name in FILES})
    used = {
        name: sum(name in {used.split(".")[0] for used in own_imports(path)} for path in FILES.values()) for name in modules
    }
    parts, y = list[str](), 10
    for level in sorted(set(LEVELS.values()), reverse=True):
        top, x = y, 70.0
        boxes = list[str]()
        for name in sorted((name for name in modules if LEVELS[name] == level), key=lambda name: (-used[name], name)):
            width = _LETTER * len(name) + 14
            if x + width > _WIDTH - 10:
                x, y = 70.0, y + _ROW
            weight = " font-weight='600'" if used[name] >= 8 else ""
            boxes.append(
                f"<rect x='{x:.0f}' y='{y + 8}' width='{width:.0f}' height='{_BOX}' rx='4' fill='#fff' stroke='#90a4ae'/>"
                f"<text x='{x + width / 2:.0f}' y='{y + 24}' text-anchor='middle'{weight}>{name}</text>"
            )
            x += width + _GAP
        y += _ROW + 8
        parts.append(
            f"<rect x='4' y='{top}' width='{_WIDTH - 8}' height='{y - top - 2}' rx='6' fill='{_COLOURS[level]}'/>"
            f"<text x='14' y='{top + 24}' fill='#546e7a'>level {level}</text>" + "".join(boxes)
        )
    svg = (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {_WIDTH} {y + 6}' font-family='sans-serif' font-size='12'>"
        + "".join(parts) + "</svg>\n"
    )  # fmt: skip
    (ROOT / "docs" / "pictures" / "architecture.svg").write_text(svg)


if __name__ == "__main__":
    main()
