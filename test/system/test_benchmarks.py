"""What a benchmark lacks is said in one line.

Its figures come from rounds that see the same machine.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.mark.parametrize(
    ("name", "said"), [("estimate.py", "no model there"), ("", "nowhere")]
)
def test_what_is_missing_is_said_in_one_line(name: str, said: str) -> None:
    words = ["--category", "/nowhere"] if not name else ["/nowhere"]
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / name), *words], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert (
        done.stderr.startswith("error: ")
        and done.stderr.count("\n") == 1
        and said in done.stderr
    )


def test_ratios_are_medians_over_the_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import common

    # the machine is ten times as slow in the second round
    assert common.ratio({"a": [2.0, 20.0, 2.4], "b": [1.0, 10.0, 2.0]}, "a", "b") == 2.0
    assert common.milliseconds([0.001, 0.003, 0.002]) == {
        "p50": 2.0,
        "p95": 2.9,
        "max": 3.0,
    }
    calls: list[str] = []
    seconds = common.rounds(
        {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3, warm=1
    )
    assert calls == ["a", "b"] * 4
    assert [len(values) for values in seconds.values()] == [3, 3]


def test_the_benchmark_of_estimates_runs_at_size_one(chair_model: Path) -> None:
    words = [chair_model, "--rounds", 1, "--objects", 1, "--sizes", 112, "--json", "-"]
    command = [sys.executable, str(BENCHMARKS / "estimate.py"), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-1000:]
    record = json.loads(done.stdout)
    assert record["machine"]["processor"]
    assert record["estimate"]
