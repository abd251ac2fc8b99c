"""Measure the structure of the package: folders, floors, public names, density and line lengths.

    python tools/house.py             a table; exit code 1 where a limit is exceeded
    python tools/house.py --json -    the same as JSON on stdout

The limits are those of `LIMITS`; `make lint` runs this program. The architecture test and the
image of the architecture use the same functions.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import sys
import tokenize
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "uns_pose_ros"
LIMITS = {
    "modules_per_folder": 13,
    "names_public_twice": 0,
    "nodes_per_line": 9.5,
    "longest_line": 100,
    "readme_lines": 200,
    "floors": 8,
}
# the floor of every package, and the packages that it may import; None: every package below it
FLOORS: dict[str, tuple[int, tuple[str, ...] | None]] = {
    "core": (0, ()),
    "io": (1, ("core",)),
    "visualization": (1, ("core",)),
    "alignment": (1, ("core", "io")),
    "networks": (2, ("core", "io")),
    "capture": (2, ("core", "io", "visualization")),
    "datasets": (2, ("core", "io")),
    "reconstruction": (3, ("core", "io", "networks")),
    "estimation": (3, ("core", "networks")),
    "training": (
        4,
        ("core", "io", "networks", "reconstruction", "alignment", "estimation"),
    ),
    "evaluation": (
        4,
        ("core", "io", "visualization", "networks", "estimation", "datasets"),
    ),
    "nodes": (4, ("core", "io", "visualization", "networks", "capture", "estimation")),
    "exports": (5, ("core", "io", "visualization")),
    "pipeline": (5, None),
    "reporting": (6, None),
    "cli": (7, None),
}
_LAYOUT_TOKENS = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}


def module_name(path: Path) -> str:
    """`estimation.tracker` for a file of the package; `estimation` for its `__init__.py`."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def module_files() -> dict[str, Path]:
    """All modules of the package by name, without the package's own `__init__.py`."""
    paths = sorted(PACKAGE.rglob("*.py"))
    return {module_name(path): path for path in paths if path != PACKAGE / "__init__.py"}


@cache
def imported_names(path: Path) -> tuple[str, ...]:
    """Full names of everything that a file imports, also inside functions."""
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"{path}, line {node.lineno}: relative import")
            names += (f"{node.module}.{alias.name}" for alias in node.names)
    return tuple(names)


def imported_modules(path: Path, files: dict[str, Path]) -> set[str]:
    """Modules of the package that a file imports."""
    found = set()
    for name in imported_names(path):
        parts = name.split(".")
        if parts[0] != PACKAGE.name:
            continue
        candidates = [".".join(parts[1:count]) for count in range(2, len(parts) + 1)]
        found |= {c for c in candidates if c in files and files[c].name != "__init__.py"}
    return found


def package_imports() -> dict[str, Counter[str]]:
    """For every package, how many of its modules import each other package."""
    files = module_files()
    arrows: dict[str, Counter[str]] = {name: Counter() for name in FLOORS}
    for module, path in files.items():
        package = module.split(".")[0]
        used = {other.split(".")[0] for other in imported_modules(path, files)}
        arrows[package].update(used - {package})
    return arrows


def allowed_imports(package: str) -> tuple[str, ...]:
    """The packages that a package may import."""
    floor, allowed = FLOORS[package]
    if allowed is not None:
        return allowed
    return tuple(name for name, (other, _) in FLOORS.items() if other < floor)


def modules_per_folder() -> dict[str, int]:
    """How many modules each folder of the package holds, `__init__.py` not counted."""
    paths = [path for path in module_files().values() if path.name != "__init__.py"]
    return dict(Counter(str(path.parent.relative_to(ROOT)) for path in paths))


def names_public_twice() -> dict[str, list[str]]:
    """Functions and classes that two modules define under one public name."""
    homes: dict[str, list[str]] = defaultdict(list)
    for module, path in module_files().items():
        for node in ast.parse(path.read_text()).body:
            if isinstance(
                node, ast.FunctionDef | ast.ClassDef
            ) and not node.name.startswith("_"):
                homes[node.name].append(module)
    return {name: modules for name, modules in sorted(homes.items()) if len(modules) > 1}


def nodes_per_line() -> float:
    """Nodes of the syntax tree for each line of code, without docstrings and comments."""
    nodes = lines = 0
    for path in module_files().values():
        text = path.read_text()
        tree = ast.parse(text)
        docstrings = set[int]()
        for node in ast.walk(tree):
            nodes += 1
            if isinstance(
                node, ast.Module | ast.ClassDef | ast.FunctionDef
            ) and ast.get_docstring(node):
                text_node = node.body[0]
                docstrings |= set(range(text_node.lineno, (text_node.end_lineno or 0) + 1))
                nodes -= 2
        code = set[int]()
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type not in _LAYOUT_TOKENS:
                code |= set(range(token.start[0], token.end[0] + 1))
        lines += len(code - docstrings)
    return nodes / lines


def longest_line() -> tuple[int, str]:
    """Length of the longest line of the package, and where it is."""
    return max(
        (len(line), f"{path.relative_to(ROOT)}:{number}")
        for path in PACKAGE.rglob("*.py")
        for number, line in enumerate(path.read_text().splitlines(), 1)
    )


def measure() -> dict[str, object]:
    """All figures, with the names behind them."""
    folders = modules_per_folder()
    longest, where = longest_line()
    twice = names_public_twice()
    return {
        "modules_per_folder": max(folders.values()),
        "folders": folders,
        "names_public_twice": len(twice),
        "twice": twice,
        "nodes_per_line": round(nodes_per_line(), 2),
        "longest_line": longest,
        "longest_line_at": where,
        "readme_lines": len((ROOT / "README.md").read_text().splitlines()),
        "floors": len({floor for floor, _ in FLOORS.values()}),
        "limits": LIMITS,
    }


def main() -> int:
    """Print the figures; returns 1 where one of them exceeds its limit."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0] if __doc__ else None
    )
    parser.add_argument("--json", metavar="-", help="print JSON on stdout")
    as_json = parser.parse_args().json is not None
    figures = measure()
    exceeded = [name for name, limit in LIMITS.items() if float(str(figures[name])) > limit]
    if as_json:
        print(json.dumps(figures, indent=1))
    else:
        for name, limit in LIMITS.items():
            print(f"{name:20} {figures[name]:>6}  (at most {limit})")
    for name in exceeded:
        detail = {"longest_line": "longest_line_at", "names_public_twice": "twice"}.get(
            name
        )
        more = f": {figures[detail]}" if detail else ""
        print(
            f"house: {name} is {figures[name]}, at most {LIMITS[name]}{more}",
            file=sys.stderr,
        )
    return 1 if exceeded else 0


if __name__ == "__main__":
    sys.exit(main())
