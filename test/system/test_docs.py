"""The pages of docs/ say what there is.

Messages, files, commands, links; and they build without a network.
"""

from __future__ import annotations

import ast
import contextlib
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from uns_pose_ros.cli import main

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
MKDOCS = ROOT / "build" / "docs" / "bin" / "mkdocs"


def literals() -> str:
    """All text in the package's source.

    Constants, and the constant parts of f-strings, joined as they are written.
    """
    found = list[str]()
    for path in sorted((ROOT / "uns_pose_ros").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                found.append(
                    "".join(
                        str(part.value) if isinstance(part, ast.Constant) else "\0"
                        for part in node.values
                    )
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return re.sub(r"%[sd]|%\.\df", "\0", "\n".join(found))


def test_every_message_that_is_explained_exists() -> None:
    text = literals()
    headings = re.findall(
        r"^`([^`]+)`\n:", (ROOT / "docs" / "troubleshooting.md").read_text(), re.MULTILINE
    )
    assert len(headings) > 15
    for heading in headings:
        parts = [part.strip() for part in heading.split("…") if part.strip(" ;:()")]
        for part in parts:
            assert part in text, f"no message says {part!r}"


def test_what_the_doctor_says_in_the_filming_guide_is_what_it_says() -> None:
    text = literals()
    for quote in re.findall(
        r"^\| [^|]+ \| `([^`]+)`", (ROOT / "docs" / "filming.md").read_text(), re.MULTILINE
    ):
        assert re.sub(r"\d+", "\0", quote) in text or quote == "ok", quote


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_images_files_and_commands_of_a_page_exist(
    page: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert target.startswith("https://") or (page.parent / target).exists(), target
    for path in re.findall(
        r"`((?:tools|test|examples|benchmarks|requirements)/[\w./]+)`", text
    ):
        assert (ROOT / path).exists(), path
    for name, rest in re.findall(
        r"`uns-pose ((?:evaluate |view (?=live)|export (?=labels)|reproduce )?[a-z]+)"
        r"([^`\n]*)`",
        text,
    ):
        with contextlib.suppress(SystemExit):
            main.main([*name.split(), "--help"])
        usage = capsys.readouterr().out
        for option in re.findall(r"--[\w.-]+", rest):
            assert option in usage, f"uns-pose {name} {option}"


def pages_of(entry: object) -> list[str]:
    """The files of an entry of the navigation, at any depth."""
    if isinstance(entry, str):
        return [entry]
    parts = entry if isinstance(entry, list) else list(entry.values())  # type: ignore[attr-defined]
    return [page for part in parts for page in pages_of(part)]


def test_every_page_is_in_the_navigation() -> None:
    navigation = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    assert sorted(pages_of(navigation)) == sorted(
        page.relative_to(ROOT / "docs").as_posix() for page in PAGES
    )


def test_parameters_in_the_tuning_guide_exist() -> None:
    page = (ROOT / "docs" / "parameters.md").read_text()
    listed = set(re.findall(r"^\| `([\w.]+)` \|", page, re.MULTILINE))
    guide = (ROOT / "docs" / "tuning.md").read_text()
    named = set(
        re.findall(r"`((?:(?:tracking|search|solver)\.)?[a-z_]+)(?:: [\w]+)?`", guide)
    )
    assert len(named) > 5
    assert named <= listed, named - listed


@pytest.mark.parametrize("page", ["robots.md", "launch.md"])
def test_the_examples_of_a_page_are_python(page: str) -> None:
    text = (ROOT / "docs" / page).read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert blocks
    for block in blocks:
        ast.parse(block)


def test_no_page_names_a_font_or_script_from_elsewhere() -> None:
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    assert settings["theme"]["font"] is False and settings["strict"] is True
    assert not {"extra_css", "extra_javascript"} & settings.keys()


@pytest.mark.skipif(not MKDOCS.exists(), reason="`make docs` was not run")
def test_the_site_builds_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    command = [
        str(MKDOCS),
        "build",
        "--quiet",
        "--strict",
        "--site-dir",
        str(tmp_path / "site"),
    ]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, env=environment)
    pages = sorted((tmp_path / "site").glob("*.html"))
    assert {page.stem for page in PAGES} <= {page.stem for page in pages}
    for page in pages:
        assert not re.findall(
            r"<(?:script|link|img)[^>]+(?:src|href)=\"https?:[^>]+", page.read_text()
        ), page.name
