"""A few SIGKILLs of import and reconstruct, spread over the time each takes.

Benchmarks/kills.py does many.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "kills.py"


@pytest.mark.parametrize(
    ("stages", "kills", "needs"),
    [
        ("film,photographs,bag", 2, "rosbags"),
        ("posed", 2, "cv2"),
        ("unposed", 1, "pycolmap"),
    ],
)
def test_what_is_kept_is_whole_and_the_rerun_gives_what_an_undisturbed_run_gives(
    stages: str, kills: int, needs: str, tmp_path: Path
) -> None:
    pytest.importorskip(needs)
    words = [
        "--stages",
        stages,
        "--kills",
        str(kills),
        "--views",
        "7",
        "--disc",
        "--work",
        str(tmp_path / "work"),
        "--json",
        str(tmp_path / "out.json"),
    ]
    done = subprocess.run(
        [sys.executable, str(BENCHMARK), *words], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "out.json").read_text())
    assert list(result) == stages.split(",")
    for outcome in result.values():
        assert (outcome["kills"], outcome["broken"], outcome["different"]) == (
            kills,
            [],
            [],
        )
