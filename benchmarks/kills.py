#!/usr/bin/env python3
"""SIGKILL at random moments of recorder, import, reconstruct, and of `run` with other settings.

What is kept is whole, and the rerun gives what it would have.

    python benchmarks/kills.py --kills 20 --json kills.json
        # minutes of one core
    python benchmarks/kills.py --stages film,posed --kills 3 --work /tmp/kills

Each stage runs once undisturbed. Then it is begun anew, killed at a moment that is uniform over
that run's CPU time (which a busy machine does not stretch), looked at, run again, and compared file
by file. The recorder is the node, over DDS; it is killed at a moment uniform over the time that
showing it the images took undisturbed. Exit code 1 where something kept was broken, or a rerun
did not give the same.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"  # what has no threads can be forked
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "test" / "support"))

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402

import quick_work  # noqa: E402
from small_category import RECONSTRUCT  # noqa: E402
from synthetic import write_video  # noqa: E402
from textured import camera_of, write_textured  # noqa: E402
from uns_pose_ros.capture.import_source import import_video  # noqa: E402
from uns_pose_ros.capture.video_writer import ImportConfig  # noqa: E402
from uns_pose_ros.cli.main import main as main_command  # noqa: E402
from uns_pose_ros.io import artifacts  # noqa: E402
from uns_pose_ros.io.camera_json import camera_record  # noqa: E402
from uns_pose_ros.networks import u2net  # noqa: E402
from uns_pose_ros.pipeline import reconstruction_stage  # noqa: E402
from uns_pose_ros.reconstruction.colmap_mapper import SfmConfig  # noqa: E402
from uns_pose_ros.reconstruction.mask_voting import MaskConfig  # noqa: E402

STAGES = ("film", "bag", "photographs", "posed", "unposed", "remade", "recorder")
REMADE = (
    "--mask.bad=0.2",
    "--sfm.wanted=0.5",
    "--reconstruct.margin=0.3",
    "--seed=1",
)
SMALL = MaskConfig(resolution=32, side=96)
CHANGING = ("seconds",)  # keys of JSON files that no two runs have in common
_TICK = 1 / os.sysconf("SC_CLK_TCK")  # s, in which the system counts CPU time
FAILED = 97  # exit code of a child that raised


@dataclass
class Outcome:
    """What came of the kills of one stage."""

    # CPU time of the undisturbed run; of the recorder, how long it was shown images
    seconds: float
    kills: int = 0
    finished: int = 0  # times that the stage ended before its kill; not counted as kills
    broken: list[str] = field(
        default_factory=list
    )  # what was kept and is not whole, one line each
    different: list[str] = field(
        default_factory=list
    )  # what a rerun gave that an undisturbed run does not
    # kills after which something was there already that the rerun could go on with
    left: int = 0


@dataclass(frozen=True)
class Stage:
    """A stage that works in a folder: what is made before it, and what it does."""

    prepare: Callable[[Path], None]
    run: Callable[[Path], Any]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--stages", default=",".join(STAGES), help="comma separated (default: %(default)s)"
    )
    parser.add_argument(
        "--kills", type=int, default=20, help="a stage (default: %(default)s)"
    )
    parser.add_argument(
        "--views",
        type=int,
        default=9,
        help="images of a video without poses (default: %(default)s)",
    )
    parser.add_argument(
        "--disc",
        action="store_true",
        help="a disc in the middle of a image stands for the network that finds masks, which "
        "takes two thirds of the time of a video without poses and writes nothing",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of the moments (default: %(default)s)"
    )
    parser.add_argument(
        "--work", type=Path, help="folder to work in, emptied (default: a temporary one)"
    )
    parser.add_argument("--json", type=Path, help="write the counts there")
    args = parser.parse_args()
    work = args.work or Path(tempfile.mkdtemp(prefix="uns_pose_kills_"))
    torch.set_num_threads(1)
    if args.disc:
        vars(u2net).update(load_salience=lambda: show_disc)
    result = {}
    for name in args.stages.split(","):
        shutil.rmtree(work / name, ignore_errors=True)
        (work / name).mkdir(parents=True)
        outcome = kill(name, args.views, work / name, args.kills, random.Random(args.seed))
        result[name] = artifacts.plain(outcome)
        print(name, json.dumps(result[name]), flush=True)
    if args.json is not None:
        artifacts.write_json(args.json, result)
    if args.work is None:
        shutil.rmtree(work)
    return int(any(one["broken"] or one["different"] for one in result.values()))


def kill(name: str, views: int, work: Path, kills: int, rng: random.Random) -> Outcome:
    if name != "recorder":
        return kill_stage(stage_of(name, views), work, kills, rng)
    from recorder_kills import kill_recorder  # needs ROS

    seconds, broken, different, left = kill_recorder(work, kills, rng)
    return Outcome(seconds, kills, 0, broken, different, left)


def stage_of(name: str, views: int) -> Stage:
    """One of `STAGES` but the recorder."""
    if name in ("posed", "unposed"):
        prepare = (
            prepare_posed
            if name == "posed"
            else lambda folder: prepare_unposed(folder, views)
        )
        sfm = SfmConfig(threads=1)
        return Stage(
            prepare,
            lambda folder: reconstruction_stage.reconstruct(
                folder / "mug", None, RECONSTRUCT, "cpu", None, sfm, SMALL
            ),
        )
    if name == "remade":
        return Stage(prepare_remade, remake)
    prepare, source = {
        "film": (prepare_film, "film.mp4"),
        "bag": (prepare_bag, "bag"),
        "photographs": (prepare_photographs, "photographs"),
    }[name]
    config = ImportConfig(fixed_frame="odom") if name == "bag" else ImportConfig()
    return Stage(
        prepare,
        lambda folder: import_video(folder / source, folder / "mug" / "clip_01", config),
    )


def scene(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 255, (240, 320, 3), dtype=np.uint8)


def prepare_film(folder: Path) -> None:
    film = cv2.VideoWriter(
        str(folder / "film.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 30, (320, 240)
    )
    for number in range(60):
        film.write(scene(number))
    film.release()


def prepare_photographs(folder: Path) -> None:
    (folder / "photographs").mkdir()
    for number in range(60):
        cv2.imwrite(str(folder / "photographs" / f"{number:03d}.png"), scene(number))


def prepare_bag(folder: Path) -> None:
    from rosbags.rosbag2 import StoragePlugin

    from bag_writer import KINDS, write_bag

    write_bag(
        folder / "bag",
        StoragePlugin.MCAP,
        set(KINDS) - {"/cam/image_raw/compressed"},
        views=40,
    )


def prepare_posed(folder: Path) -> None:
    for number in (1, 2):
        write_video(folder / "mug" / f"clip_{number:02d}", number, views=8, size=96)


def prepare_unposed(folder: Path, views: int) -> None:
    clip = folder / "mug" / "clip_01"
    write_textured(clip, views)
    shutil.rmtree(clip / "truth")
    artifacts.write_json(
        clip / "video.json",
        {"metric": False, "camera": {**camera_record(camera_of(256)), "from": "given"}},
    )


def show_disc(image: np.ndarray) -> np.ndarray:
    """A disc in the middle of an image (H, W, 3), as a salience (H, W) in 0..1."""
    height, width = image.shape[:2]
    disc = np.zeros((height, width), np.float32)
    cv2.circle(disc, (width // 2, height // 2), round(0.3 * min(width, height)), 1.0, -1)
    return disc


def prepare_remade(folder: Path) -> None:
    """A category with every artifact, of stand-ins for what takes time."""
    quick_work.write_quick_category(folder / "mug")
    remake(folder, ())


def remake(folder: Path, words: Sequence[str] = REMADE) -> None:
    """Make every artifact of a category again, with other settings."""
    quick_work.stand_in(setattr, folder)
    with open(os.devnull, "w") as nothing, redirect_stdout(nothing):
        if main_command(["run", str(folder / "mug"), *words]):
            raise RuntimeError("`run` failed")


def kill_stage(stage: Stage, work: Path, kills: int, rng: random.Random) -> Outcome:
    """Kill a stage so many times in forks of this process, which itself never works."""
    whole, tried = work / "undisturbed", work / "killed"
    whole.mkdir()
    finish(in_child(lambda: stage.prepare(whole)))
    shutil.copytree(whole, work / "source")
    outcome = Outcome(round(finish(in_child(lambda: stage.run(whole))), 2))
    while outcome.kills < kills:
        shutil.rmtree(tried, ignore_errors=True)
        shutil.copytree(work / "source", tried, copy_function=shutil.copy2)
        child = in_child(lambda: stage.run(tried))
        moment = rng.uniform(0, outcome.seconds)
        while cpu_time(child) < moment - _TICK:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, _TICK))
        os.kill(child, signal.SIGKILL)
        if not os.WIFSIGNALED(os.waitpid(child, 0)[1]):
            outcome.finished += 1
            continue
        outcome.kills += 1
        which = f"kill {outcome.kills}"
        outcome.left += sorted(files(tried)) != sorted(files(work / "source"))
        outcome.broken += [
            f"{which}: {line}" for line in broken(tried, whole, work / "source")
        ]
        try:
            finish(in_child(lambda: stage.run(tried)))
        except RuntimeError as error:
            outcome.different.append(f"{which}: the rerun failed: {error}")
        outcome.different += [f"{which}: {line}" for line in differences(tried, whole)]
    return outcome


def in_child(work: Callable[[], Any]) -> int:
    """Start to work in a fork; its process id."""
    child = os.fork()
    if child:
        return child
    try:
        work()
        os._exit(0)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(FAILED)


def finish(child: int) -> float:
    """Wait for a child that must end well; its CPU time (s)."""
    _, status, used = os.wait4(child, 0)
    if status:
        raise RuntimeError(f"a child ended with {os.waitstatus_to_exitcode(status)}")
    return used.ru_utime + used.ru_stime


def cpu_time(child: int) -> float:
    """CPU time (s) of a child so far, in steps of `_TICK`; infinite where it has ended."""
    state, *fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
    return float("inf") if state == "Z" else (int(fields[10]) + int(fields[11])) * _TICK


def files(folder: Path) -> dict[str, Path]:
    return {
        path.relative_to(folder).as_posix(): path
        for path in folder.rglob("*")
        if path.is_file()
    }


def broken(folder: Path, whole: Path, source: Path) -> Iterable[str]:
    """Files under their final names that are neither what was there nor what a whole run makes.

    Video.json may still lack entries.
    """
    wanted, before = files(whole), files(source)
    for name, path in files(folder).items():
        if any(part.startswith(".") for part in Path(name).parts):
            continue
        if name in before and same(path, before[name]):
            continue
        if name not in wanted:
            yield f"{name} is no part of the result"
        elif path.name == "video.json":
            try:
                record = plain_json(path)
            except ValueError as error:
                yield f"{name}: {error}"
            else:
                complete = plain_json(wanted[name])
                yield from (
                    f"{name}: {key} is wrong"
                    for key in record
                    if record[key] != complete.get(key)
                )
        elif not same(path, wanted[name]):
            yield f"{name} is not whole"


def differences(folder: Path, whole: Path) -> Iterable[str]:
    """What one folder has and the other has not, hidden files too, and files that differ."""
    found, wanted = files(folder), files(whole)
    yield from (f"{name} is left over" for name in sorted(found.keys() - wanted.keys()))
    yield from (f"{name} is missing" for name in sorted(wanted.keys() - found.keys()))
    yield from (
        f"{name} differs"
        for name in sorted(found.keys() & wanted.keys())
        if not same(found[name], wanted[name])
    )


def same(path: Path, other: Path) -> bool:
    """Whether two files hold the same.

    Byte by byte, but for times, and for hashes of what holds times.
    """
    if path.suffix == ".json":
        return plain_json(path) == plain_json(other)
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        ours, theirs = load_file(path), load_file(other)
        return ours.keys() == theirs.keys() and all(
            torch.equal(ours[key], theirs[key]) for key in ours
        )
    return path.read_bytes() == other.read_bytes()


def plain_json(path: Path) -> Any:
    """A JSON file's value without what changes from run to run."""
    return without(json.loads(path.read_text()))


def without(value: Any) -> Any:
    if isinstance(value, dict):
        changing = (*CHANGING, "import") if "import" in value else CHANGING
        if value.get("stage") in ("align", "train"):
            changing = (*changing, "inputs")  # safetensors orders its metadata at random
        return {key: without(item) for key, item in value.items() if key not in changing}
    return [without(item) for item in value] if isinstance(value, list) else value


if __name__ == "__main__":
    sys.exit(main())
