"""The hidden names under which files and folders are made, and what dead processes left of them.

A hidden name tells which process made it. Therefore, what a dead process left can be deleted, and
what a live process makes never is.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import socket
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

# of a hidden name: the stem of its target, machine, process, its start, random digits, its kind
_STAGED = re.compile(
    r"\.(?P<stem>.+)\.(?P<machine>[0-9a-f]{8})-(?P<process>\d+)-(?P<start>\d+)-[0-9a-f]{8}"
    r"\.(?P<kind>tmp|new|old)"
)
# of versions before 0.2: hidden files, and the ends of hidden folders
_FILE_BEFORE = re.compile(r"\..+\..+-(?P<process>\d+)\.tmp")
_ENDS_BEFORE = ("making", "importing", r"[0-9a-f]{8}")
_LONGEST_STEM = 120  # bytes of a target's name that go into a hidden name
_FOREIGN_AGE = 86_400.0  # s without a change after which another machine's stray is deleted


def stem_of(name: str) -> str:
    """A name as a part of hidden names: itself, or what stands for it where it is long."""
    if len(name.encode()) <= _LONGEST_STEM:
        return name
    return f"{name[:24]}~{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def staged_name(path: Path, kind: str) -> Path:
    """A new hidden name beside a path, of this process."""
    process = os.getpid()
    owner = (
        f"{machine_token()}-{process}-{process_start(process) or 0}-{secrets.token_hex(4)}"
    )
    return path.with_name(f".{stem_of(path.name)}.{owner}.{kind}")


def final_name(path: str | Path) -> Path:
    """A path as it is called when it is done: without hidden names."""
    parts = (
        match["stem"] if (match := _STAGED.fullmatch(part)) else part
        for part in Path(path).parts
    )
    return Path(*parts)


def list_strays(folder: Path, name: str | None = None) -> list[tuple[Path, str]]:
    """Hidden paths of dead processes in a folder, each with its kind.

    Those of earlier versions are known by the name of their target only.
    """
    strays = []
    try:
        entries = [entry for entry in os.scandir(folder) if entry.name[0] == "."]
    except OSError:
        return []
    for entry in entries:
        path = Path(entry.path)
        if (match := _STAGED.fullmatch(entry.name)) is not None:
            if name in (None, match["stem"]) or match["stem"] == stem_of(name or ""):
                strays += [] if _is_alive(match, path) else [(path, match["kind"])]
        elif name is not None and entry.is_dir() and _is_folder_before(name, entry.name):
            strays.append((path, "new"))
        elif _is_file_before(entry.name):
            strays.append((path, "tmp"))
    return sorted(strays)


def _is_folder_before(name: str, hidden: str) -> bool:
    """Whether an earlier version made a hidden folder for the folder or bag `name`."""
    return any(re.fullmatch(rf"\.{re.escape(name)}\.{end}", hidden) for end in _ENDS_BEFORE)


def _is_file_before(hidden: str) -> bool:
    """Whether an earlier version made a hidden file in a process of this machine, dead now."""
    match = _FILE_BEFORE.fullmatch(hidden)
    if match is None or not hidden.endswith(
        f".{socket.gethostname()}-{match['process']}.tmp"
    ):
        return False
    return process_start(int(match["process"])) is None


def _is_alive(match: re.Match[str], path: Path) -> bool:
    """Whether the process that a hidden name tells still runs, or may run elsewhere."""
    if match["machine"] == machine_token():
        return process_start(int(match["process"])) == int(match["start"])
    try:
        return time.time() - path.stat().st_mtime < _FOREIGN_AGE
    except OSError:
        return False


@cache
def machine_token() -> str:
    """This machine since its start, and its space of process numbers, as 8 digits."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


def process_start(process: int) -> int | None:
    """When a process began, in ticks of the system (0: unknown); None where it does not run."""
    try:
        text = Path(f"/proc/{process}/stat").read_text()
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return None
    except OSError:
        return None
    else:
        state, *values = text.rpartition(")")[2].split()
        return None if state in "ZX" else int(values[18])
    try:  # a system without /proc
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return None
    except OSError:
        pass
    return 0
