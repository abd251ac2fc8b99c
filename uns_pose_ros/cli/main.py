"""The command line `uns-pose`.

It finds the command and runs it. It turns bad input and errors of the disk into one line and exit
code 2, and SIGTERM into what Ctrl-C does. It imports nothing heavy before a command is chosen, so
that help and usage errors come at once.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from importlib import import_module
from types import FrameType
from typing import NoReturn

import uns_pose_ros

# command: module and function, what it does
COMMANDS: dict[str, tuple[str, str, str]] = {
    "run": (
        "pipeline.run_command",
        "run_command",
        "find poses and masks, reconstruct, align and train; goes on where it was stopped",
    ),
    "import": (
        "video_commands",
        "import_command",
        "make a video folder of a film, a bag, images, a COLMAP dataset, a CO3D sequence",
    ),
    "mask": ("video_commands", "mask_command", "make masks of the videos that have none"),
    "reconstruct": (
        "pipeline.reconstruct_command",
        "reconstruct_command",
        "make a mesh with features of each video, poses and masks first if need be",
    ),
    "align": (
        "pipeline.align_command",
        "align_command",
        "bring the videos of a category to one canonical frame",
    ),
    "train": (
        "pipeline.train_command",
        "train_command",
        "train a model on the aligned videos of a category",
    ),
    "report": (
        "report_command",
        "report_command",
        "write one HTML page with meshes, confidences, estimates and accuracies",
    ),
    "estimate": (
        "model_commands",
        "estimate_command",
        "estimate the poses of a category's objects in images",
    ),
    "frames": (
        "frames_command",
        "frames_command",
        "list, add, remove or edit named frames of a model, such as a handle or a grasp",
    ),
    "export": (
        "export_command",
        "export_command",
        "write the backbone as an ONNX file for other runtimes",
    ),
    "export labels": (
        "labels_command",
        "export_labels_command",
        "write poses, masks, boxes and keypoints of aligned videos for other programs",
    ),
    "evaluate alignment": (
        "model_commands",
        "evaluate_alignment_command",
        "compare an alignment with labels",
    ),
    "evaluate pose": (
        "model_commands",
        "evaluate_pose_command",
        "compare the poses in the images of labeled videos with their labels",
    ),
    "evaluate bag": (
        "rosbag_command",
        "evaluate_bag_command",
        "estimate every image of a recorded bag; accuracy, time, jitter, losses",
    ),
    "board": (
        "evaluate.board_command",
        "board_command",
        "write a page with a board of markers, the truth of `evaluate bag --truth-board`",
    ),
    "evaluate dataset": (
        "evaluate.dataset_command",
        "evaluate_dataset_command",
        "measure models on a public data set, such as PASCAL3D+, read from its own files",
    ),
    "reproduce paper": (
        "evaluate.reproduce_command",
        "reproduce_paper_command",
        "run the paper's chain: import CO3D, align, train, evaluate on PASCAL3D+",
    ),
    "backgrounds": (
        "places.backgrounds_command",
        "backgrounds_command",
        "take images of the robot's places of a bag, a film or a folder, for --backgrounds",
    ),
    "adapt": (
        "places.adapt_command",
        "adapt_command",
        "adapt a model to a recording with transforms, without labels, if that makes it better",
    ),
    "view": (
        "view_commands",
        "view_command",
        "show a bag or images with their poses as a 3D scene in a browser",
    ),
    "view live": (
        "view_commands",
        "view_live_command",
        "show what a running estimator node finds in a browser",
    ),
    "weights": (
        "model_commands",
        "weights_command",
        "show the pretrained weights and fetch the missing ones",
    ),
    "doctor": (
        "doctor_command",
        "doctor_command",
        "say what is wrong with a category's videos, or what this machine lacks",
    ),
}
DONE, FAULT, BAD_INPUT, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143
_INSTALL = 'python3 -m pip install "uns_pose_ros[{extra}]"'
_EXTRAS = {"pycolmap": "sfm", "viser": "view"}  # the others are of the extra "pipeline"


class _Stopped(KeyboardInterrupt):
    """A signal that ends a command as Ctrl-C does."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the arguments name; returns the exit code."""
    with _stopping_signals():
        code = FAULT
        try:
            try:
                code = _dispatch(arguments)
                return code
            finally:
                sys.stdout.flush()  # at the interpreter's end nobody could catch what this raises
        except BrokenPipeError:  # whoever reads our output has read enough, as `head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return DONE
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            if code != BAD_INPUT:  # else the command has said it already
                _complain(f"uns-pose: the output cannot be written ({error.strerror})")
            return BAD_INPUT


def run_quietly(words: Sequence[str]) -> int:
    """Run one command within another one: its results go to stderr; returns the exit code.

    Ctrl-C ends both.
    """
    name = next(n for n in (" ".join(words[:2]), words[0]) if n in COMMANDS)
    with redirect_stdout(sys.stderr):
        return _run(name, words[len(name.split()) :])


@contextmanager
def _stopping_signals() -> Iterator[None]:
    """Let SIGTERM, and SIGHUP of a closed terminal, end a command as Ctrl-C does."""

    def stop(number: int, _: FrameType | None) -> NoReturn:
        signal.signal(number, signal.SIG_IGN)  # another one must not end the clean-up
        raise _Stopped(number)

    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores SIGHUP
                before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _complain(line: str) -> None:
    """Print one line to stderr, if that can be written."""
    with suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def _dispatch(arguments: Sequence[str] | None) -> int:
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["--version"]:
        print(uns_pose_ros.__version__)
        return DONE
    name = next(
        (n for n in (" ".join(words[:2]), " ".join(words[:1])) if n in COMMANDS), None
    )
    if name is not None:
        try:
            return _run(name, words[len(name.split()) :])
        except KeyboardInterrupt as stop:
            _complain(
                f"uns-pose {name}: stopped; what was finished is kept, the same command goes on"
            )
            return 128 + (stop.number if isinstance(stop, _Stopped) else signal.SIGINT)
    asked = [word for word in words if word not in ("-h", "--help")]
    group = {n: c for n, c in COMMANDS.items() if asked and n.split()[0] == asked[0]}
    wants_help = len(asked) < len(words)
    if wants_help and (group or not asked):
        print(usage(group or COMMANDS))
        return DONE
    what = (
        f"{' '.join(asked[:2] if group else asked[:1])!r} is no command"
        if asked
        else "a command is needed"
    )
    _complain(
        f"uns-pose: {what}; {', '.join(group or COMMANDS)} are valid (uns-pose --help)"
    )
    return BAD_INPUT


def usage(commands: dict[str, tuple[str, str, str]]) -> str:
    """The help that lists commands."""
    width = max(len(name) for name in commands)
    lines = [
        f"  {name.ljust(width)}  {summary}" for name, (_, _, summary) in commands.items()
    ]
    return "\n".join(
        [
            "usage: uns-pose COMMAND …",
            "",
            "Category-level 3D pose without labels, CAD models or depth.",
            "",
            *lines,
            "",
            "uns-pose COMMAND --help lists a command's settings with their units and defaults.",
            "Exit codes: 0 done, 2 bad usage, bad input or an error of the disk, 1 a fault of "
            "ours, or `doctor` found what must be mended, 130 or 143 stopped by Ctrl-C or SIGTERM.",
        ]
    )


def _run(name: str, words: Sequence[str]) -> int:
    from uns_pose_ros.cli.console import warn_on_stderr  # these import torch
    from uns_pose_ros.core.errors import DiskError, InvalidInput

    module, function, _ = COMMANDS[name]
    try:
        import tyro

        warn_on_stderr()
        command = getattr(import_module(f"uns_pose_ros.cli.{module}"), function)
        return tyro.cli(command, args=_joined(words), prog=f"uns-pose {name}") or DONE
    except InvalidInput as error:
        _complain(f"uns-pose {name}: {error}")
        return BAD_INPUT
    except BrokenPipeError:
        raise
    except OSError as error:
        line = DiskError.of(error, done="read or written")
        if line is None:
            raise
        _complain(f"uns-pose {name}: {line}")
        return BAD_INPUT
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == uns_pose_ros.__name__:
            raise
        fix = _INSTALL.format(extra=_EXTRAS.get(error.name or "", "pipeline"))
        _complain(f"uns-pose {name}: the Python package {error.name} is missing: {fix}")
        return BAD_INPUT


def _joined(words: Sequence[str]) -> list[str]:
    """The words as tyro reads them best.

    `--up -y` is `--up=-y`, else -y would be taken for an option. `--views=5` is `--views 5`, else
    tyro does not propose the option that is meant.
    """
    joined = list[str]()
    for word in words:
        name, is_assigned, value = word.partition("=")
        if (
            word in ("-x", "-y", "-z")
            and joined
            and joined[-1].startswith("--")
            and "=" not in joined[-1]
        ):
            joined[-1] += f"={word}"
        elif name.startswith("--") and is_assigned and value and value[0] != "-":
            joined += [name, value]
        else:
            joined.append(word)
    return joined
