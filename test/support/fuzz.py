"""Give every reader thousands of spoiled files: each must be read, or refused by one line.

    python test/support/fuzz.py --inputs 10000              all readers, in equal parts
    python test/support/fuzz.py --reader ply --inputs 500   one of them
    python test/support/fuzz.py --reader ply,mesh --first 500 --inputs 1000
        two of them, the inputs from 500 to 999 of each
    python test/support/fuzz.py --reader ply --only 17
        one input, with its traceback; the files are kept

A child process reads, with its memory bounded: what kills it, hangs it, takes more than 1.5 GiB,
raises anything but InvalidInput, or writes beside the target folder is a finding. Inputs follow
from reader and number alone. Exit code 1 where there are findings.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[2]
SHARED_MEMORY = Path("/dev/shm")  # files in it cost no disk
SCRATCH = "scratch"  # for temporary files of the readers
MEMORY = 3 * 2**29  # bytes more than the process has at its start
TIME = 5.0  # s an input may take of processor time
# s of silence after which a child is taken for hung, in whatever the machine is doing besides
PATIENCE = 200.0
Table = dict[str, tuple[Counter[str], float]]  # outcomes and slowest s of each reader


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--reader", default="")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--only", type=int, default=None)
    parser.add_argument(
        "--skip", type=int, default=None, help=argparse.SUPPRESS
    )  # makes it a child
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.skip is not None:
        child(words.inputs, words.reader, words.skip, words.first, words.folder)
    elif words.only is not None:
        once(words.reader, words.only)
    else:
        started = time.monotonic()
        table: Table = {}
        outcomes, findings = fuzz(
            words.inputs, words.reader, sys.stderr, table, words.first
        )
        print(f"{'reader':<18} {'inputs':>8} {'refused':>8} {'read':>8} {'slowest s':>10}")
        for name, (of_reader, slowest) in table.items():
            refused, read = of_reader["refused"], of_reader["read"]
            total = of_reader.total()
            print(f"{name:<18} {total:>8} {refused:>8} {read:>8} {slowest:>10.2f}")
        for finding in findings:
            print(finding)
        counts = ", ".join(f"{count} {what}" for what, count in sorted(outcomes.items()))
        print(
            f"{sum(outcomes.values())} inputs ({counts}), {len(findings)} findings, "
            f"{time.monotonic() - started:.0f} s"
        )
        sys.exit(1 if findings else 0)


def fuzz(
    inputs: int,
    reader: str = "",
    progress: IO[str] | None = None,
    table: Table | None = None,
    first: int = 0,
) -> tuple[Counter[str], list[str]]:
    """How many inputs had which outcome, and a line for each finding.

    `reader`: some of them, comma separated; "": all. `table`: receives outcomes and slowest input
    of each reader. `first`: number of the first input of each reader.
    """
    outcomes, findings, running = Counter[str](), list[str](), True
    while running:  # a new child where one died
        running, before = False, sum(outcomes.values())
        for name, number, outcome, reason, seconds in _results(
            inputs, reader, before, first
        ):
            outcomes[outcome] += 1
            if table is not None:
                of_reader, slowest = table.get(name, (Counter[str](), 0.0))
                of_reader[outcome] += 1
                table[name] = of_reader, max(slowest, seconds)
            if outcome not in ("read", "refused"):
                findings.append(f"{name} {number}: {outcome}: {reason}")
                if progress is not None:
                    print(findings[-1], file=progress, flush=True)
            running = outcome == "crash"
            if progress is not None and sum(outcomes.values()) % 500 == 0:
                print(f"{name} {number}: {dict(outcomes)}", file=progress, flush=True)
    return outcomes, findings


def _results(
    inputs: int, reader: str, skip: int, first: int
) -> Iterator[tuple[str, int, str, str, float]]:
    """Reader, number, outcome, reason and s of each input but the first `skip`, until the child
    dies of one.
    """
    command = [
        sys.executable,
        __file__,
        "--inputs",
        str(inputs),
        "--reader",
        reader,
        "--skip",
        str(skip),
        "--first",
        str(first),
        "--folder",
    ]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "1",
    }
    memory = str(SHARED_MEMORY) if os.access(SHARED_MEMORY, os.W_OK) else None
    with (
        tempfile.TemporaryFile() as errors,
        tempfile.TemporaryDirectory(prefix="fuzz_", dir=memory) as folder,
        subprocess.Popen(
            [*command, folder],
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
            bufsize=0,
        ) as process,
    ):
        assert process.stdout is not None
        begun: list[Any] = []
        start = time.monotonic()
        try:
            for line in _lines(process.stdout):
                job = json.loads(line)
                if len(job) == 4:
                    yield job[0], job[1], job[2], job[3], time.monotonic() - start
                start = time.monotonic()
                begun = job if len(job) == 2 else []
            code = process.wait()
        except TimeoutError:
            process.kill()
            code = process.wait()
        finally:
            process.kill()
        errors.seek(0)
        why = (
            f"the process ended with {code}: "
            f"{errors.read()[-500:].decode('utf-8', 'replace').strip()}"
        )
        if begun:
            yield (
                begun[0],
                begun[1],
                "crash",
                f"no answer for {PATIENCE:g} s" if code == -signal.SIGKILL else why,
                time.monotonic() - start,
            )
        elif code:
            raise RuntimeError(why)


def _lines(stream: IO[bytes]) -> Iterator[bytes]:
    """Lines of an unbuffered stream until its end; TimeoutError where nothing came for PATIENCE."""
    rest = b""
    while select.select([stream], [], [], PATIENCE)[0]:
        if not (data := stream.read(1 << 16)):
            return
        *lines, rest = (rest + data).split(b"\n")
        yield from lines
    raise TimeoutError


def child(inputs: int, reader: str, skip: int, first: int, folder: Path) -> None:
    """Read all inputs but the first `skip`.

    A line of JSON on what was the standard output before and after each.
    """
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.path.insert(0, str(ROOT))
    import logging

    from fuzz_readers import READERS
    from fuzz_speed import remember
    from uns_pose_ros.core.errors import InvalidInput

    logging.disable()
    chosen = reader.split(",")
    names = [one.name for one in READERS if reader == "" or one.name in chosen]
    numbers = range(first, first + -(-inputs // len(names)))
    jobs = [(name, number) for name in names for number in numbers][skip:]
    remember()
    tempfile.tempdir = str(folder / SCRATCH)
    Path(tempfile.tempdir).mkdir()
    bench = Bench(folder)
    for name in dict.fromkeys(name for name, _ in jobs):
        bench.prepare(name)
    gc.collect()
    gc.freeze()  # what was imported is not looked through again and again
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    bound = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (bound, bound))
    signal.signal(signal.SIGPROF, _too_long)
    for name, number in jobs:
        answers.write(json.dumps([name, number]) + "\n")
        outcome, reason = "read", ""
        try:
            signal.setitimer(signal.ITIMER_PROF, TIME)
            try:
                bench.run(name, number)
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
        except InvalidInput as error:
            outcome, reason = (
                ("refused", "")
                if "\n" not in str(error)
                else ("several lines", repr(str(error)))
            )
        except BaseException as error:
            places = [
                f"{Path(f.filename).name}:{f.lineno}"
                for f in traceback.extract_tb(error.__traceback__)[-3:]
            ]
            outcome, reason = (
                "fault",
                f"{type(error).__name__}: {str(error)[:200]!r} in {' '.join(places)}",
            )
        answers.write(json.dumps([name, number, outcome, reason]) + "\n")


def once(name: str, number: int) -> None:
    """One input, whose files stay to be looked at."""
    bench = Bench(Path(tempfile.mkdtemp(prefix="fuzz_")))
    bench.prepare(name)
    print(bench.folder / name)
    bench.run(name, number)


def _too_long(*_: Any) -> None:
    raise TimeoutError(f"more than {TIME:g} s of processor time")


class Bench:
    """Valid files of the readers, of which one at a time is spoiled."""

    def __init__(self, folder: Path) -> None:
        from fuzz_readers import READERS

        self.folder, self._readers = folder, {reader.name: reader for reader in READERS}
        self._targets = dict[str, dict[Path, bytes]]()
        self._untouched = dict[str, dict[Path, tuple[int, int, int]]]()

    def prepare(self, name: str) -> None:
        """Write the valid files, and read them once."""
        reader, valid = self._readers[name], self.folder / name / "valid"
        valid.mkdir(parents=True)
        twin = next(
            (
                other
                for other in self._targets
                if self._readers[other].write is reader.write
            ),
            None,
        )
        if twin is None:
            reader.write(valid)
        else:
            shutil.copytree(self.folder / twin / "intact", valid, dirs_exist_ok=True)
        paths = sorted(
            {
                p
                for pattern in reader.pattern.split(",")
                for p in valid.glob(pattern)
                if p.is_file()
            }
        )
        assert paths, name
        self._targets[name] = {path: path.read_bytes() for path in paths}
        shutil.copytree(valid, self.folder / name / "intact")
        self._untouched[name] = _listing(valid)
        self._read(name, paths[0])

    def run(self, name: str, number: int) -> None:
        """Spoil one file and read.

        AssertionError where anything is written beside the target folder.
        """
        from fuzz_mutations import mutate

        random = Random(f"{name} {number}")
        path = random.choice(list(self._targets[name]))
        path.write_bytes(mutate(self._targets[name][path], path.name, random))
        repair = self._readers[name].repair
        if repair is not None and random.random() < 0.8:
            with contextlib.suppress(Exception):  # too broken for that
                repair(self.folder / name / "valid", path)
        self._read(name, path)

    def _read(self, name: str, path: Path) -> None:
        scratch = self.folder / SCRATCH
        try:
            self._readers[name].read(self.folder / name / "valid", path)
        finally:
            left = [p.name for p in scratch.glob("*") if not p.name.startswith("torch")]
            for entry in left:
                shutil.rmtree(scratch / entry, ignore_errors=True)
                (scratch / entry).unlink(missing_ok=True)
            self._restore(name, path)
        assert not left, f"temporary files stay: {left}"
        beside = {p.name for p in (self.folder / name).iterdir()} | {
            p.name for p in self.folder.iterdir()
        }
        assert beside <= {"valid", "intact", "into", SCRATCH} | self._targets.keys(), (
            f"written beside the target: {beside}"
        )

    def _restore(self, name: str, spoiled: Path) -> None:
        """Undo what was spoiled, and all that the reader wrote."""
        base = self.folder / name
        shutil.rmtree(base / "into", ignore_errors=True)
        now, before = _listing(base / "valid"), self._untouched[name]
        now[spoiled] = before[spoiled] if spoiled in now else (0, 0, 0)
        if now != before:
            shutil.rmtree(base / "valid")
            shutil.copytree(base / "intact", base / "valid")
            self._untouched[name] = _listing(base / "valid")
        else:
            spoiled.write_bytes(self._targets[name][spoiled])
            intact = base / "intact" / spoiled.relative_to(base / "valid")
            shutil.copystat(intact, spoiled)


def _listing(folder: Path) -> dict[Path, tuple[int, int, int]]:
    """Node, size and time of everything below a folder."""
    found = {}
    for path in folder.rglob("*"):
        status = path.lstat()
        found[path] = (status.st_ino, status.st_size, status.st_mtime_ns)
    return found


if __name__ == "__main__":
    main()
