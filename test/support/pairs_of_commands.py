"""Run commands while another one is in the middle of its work on the same category.

    python pairs_of_commands.py WORK

It prints, by command that was at work, how each other command ended and what was wrong, as JSON.
It runs alone, because what has threads cannot be forked.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import kill_points  # first: it sets the number of threads
import quick_work
from file_groups import contents, hidden_files
from kill_points import ANOTHER, in_child, run
from uns_pose_ros.alignment import category_alignment
from uns_pose_ros.capture import import_images
from uns_pose_ros.cli import export_command, main, model_commands
from uns_pose_ros.evaluation import rotation_labels
from uns_pose_ros.pipeline.poses_and_masks import mask_preparation
from uns_pose_ros.reconstruction import feature_mesh
from uns_pose_ros.reporting import report_builder
from uns_pose_ros.training import category_training

OTHERS = {
    "import": "import HERE/photos --into HERE/mug/clip_03 --frames 3",
    "mask": "mask HERE/mug",
    "reconstruct": "reconstruct HERE/mug",
    "align": "align HERE/mug --seed 2",
    "train": "train HERE/mug --seed 2",
    "report": "report HERE/mug",
    "estimate": "estimate HERE/mug/model HERE/photos/000000.png --overlay HERE/drawn",
    "export": "export HERE/mug/model HERE/net.onnx",
    "evaluate": "evaluate alignment HERE/mug --labels HERE/labels.json",
    "run": "run HERE/mug --seed 2",
    "doctor": "doctor HERE/mug",
}
READERS = ("report", "estimate", "export", "evaluate", "doctor")  # they need no lock
# a command that is at work, and the function in the middle of it
HELD: dict[str, tuple[str, Any, str]] = {
    "import": (
        "import HERE/photos --into HERE/mug/clip_03",
        import_images,
        "import_image_folder",
    ),
    "reconstruct": (f"reconstruct HERE/mug {ANOTHER}", feature_mesh, "build_feature_mesh"),
    "align": ("align HERE/mug --seed 1", category_alignment, "align_videos"),
    "train": ("train HERE/mug --seed 1", category_training, "train_model"),
    "mask": ("mask HERE/mug --mask.bad=0.2", mask_preparation.masking, "find_masks"),
    "run": ("run HERE/mug --seed 1", category_training, "train_model"),
    **{
        name: (OTHERS[name], module, function)
        for name, module, function in (
            ("report", report_builder, "_summarize_videos"),
            ("estimate", model_commands, "Estimator"),
            ("export", export_command, "load_backbone"),
            ("evaluate", rotation_labels, "load_labels"),
        )
    },
}


def hold(function: Callable[..., Any], held: Path, go: Path) -> Callable[..., Any]:
    """A function that first says that it was called, and waits until it may go on."""

    def call(*arguments: Any, **options: Any) -> Any:
        held.touch()
        while not go.exists():
            time.sleep(0.005)
        return function(*arguments, **options)

    return call


def work_beside(work: Path, before: Path, name: str) -> dict[str, Any]:
    """How each command ended beside the command `name`, and what was wrong in the end."""
    here, held, go = work / "here", work / "held", work / "go"
    shutil.rmtree(here, ignore_errors=True)
    shutil.copytree(before, here)
    for path in (held, go):
        path.unlink(missing_ok=True)
    line, module, function = HELD[name]

    def begin() -> int:
        setattr(module, function, hold(getattr(module, function), held, go))
        return run(here, line)

    child = os.fork()
    if child == 0:
        os._exit(begin())
    while not held.exists():
        if os.waitpid(child, os.WNOHANG)[0]:
            raise RuntimeError(f"`{line}` ended before its work")
        time.sleep(0.005)
    ended = {other: in_child(partial(run, here, OTHERS[other])) for other in OTHERS}
    go.touch()
    first = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    wrong = [
        f"{command} ends with {code}"
        for command, code in (*ended.items(), (f"held {name}", first))
        if code not in (main.DONE, main.BAD_INPUT)
        and (command, code) != ("doctor", 1)  # it lists faults of these small images
    ]
    if name in READERS:  # the others worked as if it was not there
        return {"ended": ended, "wrong": [*wrong, *hidden_files(here)]}
    # whatever they left, the whole pipeline makes of it what it makes undisturbed
    shutil.rmtree(here / "mug" / "clip_03", ignore_errors=True)
    in_child(lambda: run(here, "run HERE/mug"))
    now, whole = contents(here / "mug"), contents(before / "mug")
    wrong += [
        f"{path} differs"
        for path in sorted(now.keys() | whole.keys())
        if now.get(path) != whole.get(path)
    ]
    return {"ended": ended, "wrong": [*wrong, *hidden_files(here)]}


def work_beside_each(work: Path) -> dict[str, dict[str, Any]]:
    """Outcome by the command that is at work."""
    quick_work.stand_in(setattr, work)
    before = kill_points.prepare(work, "model")
    quick_work.write_quick_images(before / "photos")
    eye = [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    labels = {name: {"canon_from_obj": eye} for name in quick_work.CLIPS}
    (before / "labels.json").write_text(json.dumps(labels))
    return {name: work_beside(work, before, name) for name in HELD}


if __name__ == "__main__":
    print(json.dumps(work_beside_each(Path(sys.argv[1]))))
