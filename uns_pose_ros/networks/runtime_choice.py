"""The fastest runtime of the backbone on this processor, measured once and remembered.

Each runtime that is installed reads one crop for a part of a second. Of those whose features are
those of float32, the fastest is taken; PyTorch stays where another one gains little, since its
graphs take time to be made. The choice is kept in the user's cache, by processor, threads and
versions.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import filelock
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from uns_pose_ros.core.errors import DiskError, InvalidInput, make_printable
from uns_pose_ros.io.schema.constraints import Label
from uns_pose_ros.io.schema.decoding import read_record
from uns_pose_ros.io.writing.replacement import atomic_write

USUAL = "torch"  # taken if no other runtime is clearly faster
_SIZE = 224  # px, side of the crop that is read
_LAYERS = (11,)
_BUDGET = 1.0  # s of measurement for all runtimes together
_LEAST_RUNS = 2
_LEAST_GAIN = 0.1  # share of the usual runtime's time that another one saves
_LONGEST_WAIT = 60.0  # s for another process that measures
_LEAST_COSINE = 0.99  # of the mean patch of a runtime to that of the reference
_PACKAGES = ("torch", "onnx", "onnxruntime", "openvino", "uns_pose_ros")

_log = logging.getLogger(__name__)

Network = Callable[
    [Tensor, Sequence[int]], Tensor
]  # a backbone, see `dinov2.DinoV2.forward`


@dataclass(frozen=True)
class RuntimeChoice:
    """A runtime, and why it was taken."""

    name: str
    reason: str


def choose_fastest(
    candidates: Sequence[str],
    load: Callable[[str], Network],
    cache: Path,
    key: str,
    clock: Callable[[], float] = time.perf_counter,
) -> RuntimeChoice:
    """Return the remembered choice, or measure and remember one.

    Args:
        candidates: Names of runtimes, with the usual one; the features of the first are right.
        load: Returns the backbone in a runtime.
        cache: JSON file of choices by key; it need not exist.
        key: Names what the speed depends on, see `describe_machine`.
        clock: Returns seconds.
    """
    remembered = _remembered(candidates, cache, key)
    if remembered is not None:
        return remembered
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        # processes that start together measure once, not against each other
        with filelock.FileLock(cache.with_suffix(".lock"), timeout=_LONGEST_WAIT):
            remembered = _remembered(candidates, cache, key)
            if remembered is not None:
                return remembered
            chosen = _measure(candidates, load, clock)
            _remember(chosen, cache, key)
    except (OSError, DiskError) as error:  # a lock that takes too long is an OSError
        _log.warning("the choice of a runtime is not remembered: %s", _first_line(error))
        chosen = _measure(candidates, load, clock)
    _log.info("runtime %s: %s", chosen.name, chosen.reason)
    return chosen


def _remembered(candidates: Sequence[str], cache: Path, key: str) -> RuntimeChoice | None:
    name, reason = _read_choices(cache).get(key, ("", ""))
    return RuntimeChoice(name, reason) if name in candidates else None


def _remember(choice: RuntimeChoice, cache: Path, key: str) -> None:
    known = _read_choices(cache)
    known[key] = (choice.name, choice.reason)
    with atomic_write(cache) as part:
        part.write_text(json.dumps(known, indent=1))


def describe_machine() -> str:
    """Name the processor, its threads and the versions of all runtimes."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [
        line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
    ]
    versions = []
    for package in _PACKAGES:
        try:
            versions.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    limits = [
        f"{name}={os.environ[name]}"
        for name in ("ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY")
        if name in os.environ
    ]
    processor = names[0] if names else platform.machine()
    threads = f"{torch.get_num_threads()} threads"
    return ", ".join([processor, threads, *versions, *limits])


def _measure(
    candidates: Sequence[str],
    load: Callable[[str], Network],
    clock: Callable[[], float],
) -> RuntimeChoice:
    """Measure all candidates."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, 3, _SIZE, _SIZE, generator=generator)
    expected: Tensor | None = None
    seconds, left_out = dict[str, float](), list[str]()
    for name in candidates:
        try:
            network = load(name)
            with torch.inference_mode():
                tokens = network(image, _LAYERS).float().cpu()  # the first run compiles
                expected = tokens if expected is None else expected
                alike = float(cosine_similarity(tokens, expected, dim=-1).mean())
                spent = _time_runs(network, image, _BUDGET / len(candidates), clock)
        except Exception as error:  # of any runtime: the others are there
            left_out.append(f"{name} failed ({_first_line(error)})")
            continue
        if not alike >= _LEAST_COSINE:
            left_out.append(f"{name} is inexact (cosine {alike:.3f})")
            continue
        seconds[name] = spent
    if not seconds:
        return RuntimeChoice(USUAL, "; ".join(left_out))
    ranked = sorted(seconds, key=lambda name: seconds[name])
    figures = [f"{name} {1e3 * seconds[name]:.0f} ms" for name in ranked]
    fastest, usual = ranked[0], seconds.get(USUAL)
    if usual is not None and seconds[fastest] > (1 - _LEAST_GAIN) * usual:
        fastest = USUAL
    return RuntimeChoice(fastest, "; ".join([", ".join(figures), *left_out]))


def _first_line(error: Exception) -> str:
    """What an error says, in one line."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def _time_runs(
    network: Network, image: Tensor, budget: float, clock: Callable[[], float]
) -> float:
    """Median seconds of runs that take `budget` s together, or of the least number of runs."""
    taken = list[float]()
    while len(taken) < _LEAST_RUNS or sum(taken) < budget:
        begun = clock()
        network(image, _LAYERS)
        taken.append(clock() - begun)
    return float(np.median(taken))


def _read_choices(cache: Path) -> dict[str, tuple[str, str]]:
    """The remembered choices; none if the file cannot be read."""
    if not cache.exists():
        return {}
    try:
        known = read_record(cache, dict[str, tuple[Label, Label]], "list of runtimes")
    except InvalidInput as error:
        _log.warning("%s; it is measured again", error)
        return {}
    return {key: (name, make_printable(reason)) for key, (name, reason) in known.items()}
