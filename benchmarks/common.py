"""What the benchmarks share.

Rounds that see the same machine, percentiles, peak memory, the machine's name, JSON.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.io import artifacts

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "demo" / "data" / "chair"  # a category folder with masks, poses and labels
LIVE = ROOT / "demo" / "data" / "live" / "live_01"


def machine() -> dict[str, Any]:
    """What the figures were measured on, and how busy it was."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [
        line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
    ]
    return {
        "name": platform.node(),
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "instructions": instruction_set(lines, os.environ),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "load_average": round(os.getloadavg()[0], 1),
        "torch": torch.__version__,
    }


def instruction_set(lines: Sequence[str], environment: Mapping[str, str]) -> str:
    """Widest instructions that PyTorch multiplies matrices with.

    Args:
        lines: Of /proc/cpuinfo.
        environment: May limit them by ONEDNN_MAX_CPU_ISA, as the figures of AVX2 are made.
    """
    flags = next((set(line.split()) for line in lines if line.startswith("flags")), set())
    limit = environment.get("ONEDNN_MAX_CPU_ISA", "").upper()
    known = ["AVX2", "AVX512", "AMX"]
    here = [
        name
        for name, flag in zip(known, ("avx2", "avx512f", "amx_bf16"), strict=True)
        if flag in flags
    ]
    allowed = next((name for name in reversed(known) if name in limit), known[-1])
    usable = [name for name in here if known.index(name) <= known.index(allowed)]
    return usable[-1] if usable else platform.machine()


def rounds(
    work: Mapping[str, Callable[[], Any]], count: int, warm: int = 2
) -> dict[str, list[float]]:
    """Seconds of each piece of work in `count` rounds, one piece after the other, so that all see
    the same machine.
    """
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(count + warm):
        for name, function in work.items():
            start = time.perf_counter()
            function()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn >= warm:  # the first ones fill caches
                seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(seconds: Mapping[str, Sequence[float]], a: str, b: str) -> float:
    """Median over the rounds of the time of a over that of b in the same round."""
    return float(np.median(np.divide(seconds[a], seconds[b])))


def milliseconds(seconds: Sequence[float]) -> dict[str, float]:
    p50, p95 = np.percentile(seconds, [50, 95])
    return {
        "p50": round(1e3 * p50, 2),
        "p95": round(1e3 * p95, 2),
        "max": round(1e3 * max(seconds), 2),
    }


def peak_megabytes(function: Callable[[], Any]) -> float | None:
    """How far the memory of this process rises while the function runs, MB.

    None where the system does not tell.
    """
    status, marks = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    try:
        with contextlib.suppress(AttributeError):
            ctypes.CDLL(None).malloc_trim(
                0
            )  # memory kept for later would hide what is taken
        marks.write_text("5")  # forgets the peak so far
        before = _field(status, "VmRSS")
        function()
        return (_field(status, "VmHWM") - before) / 1024
    except (OSError, KeyError):
        return None


def _field(status: Path, name: str) -> int:
    """kB"""
    return int(
        dict(line.split(":", 1) for line in status.read_text().splitlines())[name].split()[
            0
        ]
    )


def write(figures: Mapping[str, Any], to: str | None) -> None:
    """JSON to a file, or with "-" to standard output."""
    text = json.dumps(artifacts.plain(figures), indent=1)
    if to == "-":
        print(text)
    elif to:
        Path(to).write_text(text + "\n")


def politely(main: Callable[[], None]) -> None:
    """Run a benchmark; what it lacks is said in one line."""
    try:
        main()
    except (InvalidInput, FileNotFoundError) as error:
        raise SystemExit(f"error: {error}") from None
