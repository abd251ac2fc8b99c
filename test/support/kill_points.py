"""Let a command die at every change of files, run it again, and compare what there is.

    python kill_points.py WORK CASE[:apart][:STEP]...

It dies at every STEP-th change, and prints the number of deaths and what was wrong after a death or
after the rerun, as JSON. It runs alone, because what has threads cannot be forked.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"

import torch  # noqa: E402

import quick_work  # noqa: E402
from disk_faults import DEAD, Dying, watched_disk  # noqa: E402
from file_groups import contents, hidden_files, torn_artifacts  # noqa: E402
from uns_pose_ros.cli import main  # noqa: E402
from uns_pose_ros.io.writing import replacement  # noqa: E402

ANOTHER = "--mask.bad=0.2 --sfm.wanted=0.5 --reconstruct.margin=0.3"
SWAPPING = ("mkdir", "rename", "replace", "link", "unlink", "rmdir")
# a command, what lies there before it, and the changes at which it dies
CASES = {
    "import": ("photos", "import HERE/photos --into HERE/mug/clip_01", ("open", *SWAPPING)),
    "reconstruct": ("one clip", f"reconstruct HERE/mug {ANOTHER}", SWAPPING),
    "train": ("model", "train HERE/mug --seed 1", SWAPPING),
    "align": ("model", "align HERE/mug --seed 1", SWAPPING),
}


def run(folder: Path, line: str) -> int:
    return main.main([word.replace("HERE", str(folder)) for word in line.split()])


def in_child(work: Callable[[], int]) -> int:
    """Exit code of work in a fork, whose output is dropped."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    try:
        os._exit(work())
    except BaseException:
        os._exit(99)


def prepare(work: Path, name: str) -> Path:
    """A folder as it is before a command."""
    here = work / "before"
    shutil.rmtree(here, ignore_errors=True)
    if name == "photos":
        quick_work.write_quick_images(here / "photos")
        return here
    quick_work.write_quick_category(here / "mug", clips=1 if name == "one clip" else 2)
    line = "reconstruct HERE/mug" if name == "one clip" else "run HERE/mug"
    if in_child(lambda: run(here, line)) != main.DONE:
        raise RuntimeError(f"{line} failed")
    return here


def die_everywhere(work: Path, case: str, step: int) -> tuple[int, list[str]]:
    """Number of deaths, and what was wrong."""
    start, line, kinds = CASES[case]
    before, here = prepare(work, start), work / "here"

    def begin() -> None:
        shutil.rmtree(here, ignore_errors=True)
        shutil.copytree(before, here)

    def die(number: int) -> int:
        with watched_disk(here, Dying(number, kinds)):
            return run(here, line)

    begin()
    old = contents(here)
    if in_child(lambda: run(here, line)) != main.DONE:
        raise RuntimeError(f"{line} failed")
    new = contents(here)
    wrong = list[str]()
    number, deaths = 1 - step, 0
    while True:
        begin()
        number += step
        if in_child(partial(die, number)) != DEAD:
            return deaths, wrong
        deaths += 1
        torn = torn_artifacts(contents(here), old, new)
        # a pair of files, and a folder that is moved away, are put right by the rerun
        moved = [name.rpartition(".")[0] for name in hidden_files(here) if ".old" in name]
        torn = [
            name
            for name in torn
            if not name.endswith("/mesh") and not _is_away(name, moved)
        ]
        wrong += [f"{case} {number}: {name} is torn" for name in torn]
        ended = in_child(lambda: run(here, line))
        if ended != main.DONE:
            wrong.append(f"{case} {number}: the rerun ends with {ended}")
        now = contents(here)
        wrong += [
            f"{case} {number}: {name} differs after the rerun"
            for name in sorted(now.keys() | new.keys())
            if now.get(name) != new.get(name)
        ]
        wrong += [f"{case} {number}: {name} is left over" for name in hidden_files(here)]


def _is_away(name: str, moved: list[str]) -> bool:
    folder, _, last = name.rpartition("/")
    return any(path.startswith(f"{folder}/.{last}.") for path in moved)


def begin_here(work: Path, cases: list[str]) -> dict[str, dict[str, object]]:
    """Outcome by case; `apart`: folders are swapped by two renames in place of one exchange."""
    torch.set_num_threads(1)
    quick_work.stand_in(setattr, work)
    outcome: dict[str, dict[str, object]] = {}
    exchange = replacement._exchange
    for case in cases:
        name, *options = case.split(":")
        step = int(next(filter(str.isdecimal, options), 1))
        replacement._exchange = (lambda *_: False) if "apart" in options else exchange
        deaths, wrong = die_everywhere(work, name, step)
        outcome[case] = {"deaths": deaths, "wrong": wrong}
    return outcome


if __name__ == "__main__":
    print(json.dumps(begin_here(Path(sys.argv[1]), sys.argv[2:])))
