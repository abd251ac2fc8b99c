"""A process that dies at a change of files leaves the old or the new, and the rerun ends the work.

`python test/support/kill_points.py WORK CASE…` lets it die at every change.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import kill_points


def test_a_death_while_folders_are_swapped_loses_nothing_and_the_rerun_gives_the_same_bytes(
    tmp_path: Path,
) -> None:
    words = [str(tmp_path), "reconstruct:apart:4", "train:apart:9", "import:9"]
    done = subprocess.run(
        [sys.executable, kill_points.__file__, *words], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    outcomes = json.loads(done.stdout.splitlines()[-1])
    assert {case: outcome["wrong"] for case, outcome in outcomes.items()} == {
        "reconstruct:apart:4": [],
        "train:apart:9": [],
        "import:9": [],
    }
    assert outcomes["reconstruct:apart:4"]["deaths"] >= 10
