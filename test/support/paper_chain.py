"""Miniatures of CO3D and PASCAL3D+ for the paper's chain; what computes is replaced.

As a script, it is one of two processes: `python paper_chain.py FOLDER WORD …` calls `uns-pose` with
the words. Process 1 dies in its first training; process 0 trains when that has happened. Where
torchrun started them, none dies, since it would end both: each trains when the other has begun to.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

import quick_work
from known_colors import KnowsColors, estimate_of
from mini_views import write_pascal3d
from source_files import write_co3d
from uns_pose_ros.alignment import published_alignment
from uns_pose_ros.cli import main
from uns_pose_ros.cli.evaluate import dataset_command
from uns_pose_ros.core.geometry import rotation_from_vector
from uns_pose_ros.core.types import Alignment
from uns_pose_ros.training import category_training

SEQUENCES = ("101_1_2", "102_1_2", "103_1_2", "104_1_2")
DIED = "died"  # file that process 1 leaves when it dies
_PATIENCE = 120.0  # s, for a process that starts on a busy machine


def write_chain(folder: Path, categories: Sequence[str] = ("car",)) -> list[str]:
    """Write the data sets and the labels; returns the words of the command."""
    source, _, _ = write_co3d(folder / "one", "ndc_isotropic")
    for category in categories:
        _write_sequences(folder / "co3d" / category, source)
        write_pascal3d(folder / "pascal", category)
    eye = {"canon_from_obj": torch.eye(3).tolist()}
    labels = {category: {name: eye for name in SEQUENCES[:2]} for category in categories}
    (folder / "labels.json").write_text(json.dumps(labels))
    given = {"co3d": "co3d", "pascal3d": "pascal", "labels": "labels.json", "into": "out"}
    words = ["reproduce", "paper", "--videos", "3"]
    for key, path in given.items():
        words += [f"--{key}", str(folder / path)]
    return words


def _write_sequences(category: Path, source: Path) -> None:
    """Four sequences of a category; the last one has the best cameras."""
    with gzip.open(source.parent / "frame_annotations.jgz", "rt") as file:
        text = file.read().replace("truck/", f"{category.name}/")
    frames = [one for one in json.loads(text) if one["sequence_name"] == source.name]
    listed = list[Any]()
    for name in SEQUENCES:
        shutil.copytree(source, category / name)
        listed += json.loads(json.dumps(frames).replace(source.name, name))
    ranked = [
        {
            "sequence_name": name,
            "category": category.name,
            "viewpoint_quality_score": score,
        }
        for name, score in zip(SEQUENCES, (0.1, None, 0.5, 0.9), strict=True)
    ]
    for file_name, items in (("frame", listed), ("sequence", ranked)):
        path = category / f"{file_name}_annotations.jgz"
        with gzip.open(path, "wt") as file:
            json.dump(items, file)


def stand_in_chain(patch: Callable[[Any, str, Any], None], folder: Path) -> None:
    """Replace everything that computes by something that takes no time."""
    folder.mkdir(exist_ok=True)
    quick_work.stand_in(patch, folder)
    patch(published_alignment, "align_to_reference", _align_to)
    patch(dataset_command, "Estimator", KnowsColors)
    patch(
        KnowsColors,
        "known",
        {
            10 * k: [estimate_of(name, torch.eye(3)) for name in ("car", "bus")]
            for k in range(4)
        },
    )


def _align_to(meshes: dict[str, Any], reference: str, *_: Any) -> Alignment:
    """An alignment that depends on the reference, so that no model fits two of them."""
    alignment = quick_work._align(meshes)
    angle = torch.tensor([0, 0, 0.1 * int(reference[:3])], dtype=torch.float64)
    alignment.canon_from_obj[0, :3, :3] = rotation_from_vector(angle)
    return alignment


def die_once(mark: Path) -> None:
    """Kill this process, unless it, or another one, has died so already."""
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def run_one_of_two(folder: Path, words: Sequence[str]) -> int:
    """Be one of two processes, as the module says."""
    stand_in_chain(setattr, folder / f"process_{os.environ['RANK']}")
    train, number = category_training.train_model, os.environ["RANK"]
    mark = folder / DIED
    by_torchrun = "TORCHELASTIC_RUN_ID" in os.environ
    if by_torchrun:
        mark = folder / f"began_{1 - int(number)}"

    def train_beside_the_other(*arguments: Any) -> Any:
        if by_torchrun:
            (folder / f"began_{number}").touch()
        elif number == "1":
            die_once(mark)
        end = time.monotonic() + _PATIENCE
        while not mark.exists() and time.monotonic() < end:
            time.sleep(0.02)
        return train(*arguments)

    setattr(category_training, "train_model", train_beside_the_other)  # noqa: B010
    return main.main(list(words))


if __name__ == "__main__":
    sys.exit(run_one_of_two(Path(sys.argv[1]), sys.argv[2:]))
