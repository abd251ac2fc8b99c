"""What a benchmark lacks is said in one line.

Its figures come from rounds that see the same machine.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from uns_pose_ros.core.types import PoseEstimate, Symmetry
from uns_pose_ros.evaluation.metrics import ImageResult

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


def test_a_set_of_images_that_the_real_world_has_not_is_named() -> None:
    command = [sys.executable, str(BENCHMARKS / "real_world.py"), "/nowhere"]
    command += ["--work", "/nowhere/work", "--sets", "mug,boat"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == (
        "error: --sets boat: mug, mug-bare, car, horse, car-rooms, horse-rooms are valid\n"
    )


def test_an_image_without_an_answer_is_wrong_and_still_has_a_score(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import real_world

    def result(
        score: float | None, error: float, inside: bool | None = None
    ) -> ImageResult:
        estimate = None
        if score is not None:
            pose = torch.eye(4, dtype=torch.float64)
            three, box = pose[:3, 0], pose[:, 0]
            estimate = PoseEstimate(
                "mug", pose, 1.0, False, three, score, None, Symmetry(), 9, 1.0, box
            )
        return ImageResult("clip", "1.jpg", estimate, error, error, 0.0, inside)

    answered = [result(0.9, 5, True), result(0.8, 50, False), result(0.7, 20, True)]
    missed = real_world.Pair(result(None, 180), result(0.1, 12))
    pairs = [*(real_world.Pair(one, one) for one in answered), missed]
    figures = real_world.summarize(pairs)
    assert (figures["images"], figures["answered"], figures["wrong"]) == (4, 75, 1)
    assert (figures["acc30"], figures["acc30_without_threshold"]) == (50, 75)
    assert figures["auroc"] == pytest.approx(1 / 3)  # of three right ones one scores higher
    assert figures["region95"] == pytest.approx(200 / 3)
    assert "mug" in real_world.table({"mug": {"plain": figures, "false_percent": 0.0}})


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
