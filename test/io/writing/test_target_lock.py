"""One process of all works on a target; the others are refused and told which it is."""

from __future__ import annotations

import errno
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from uns_pose_ros.core.errors import DiskError, InvalidInput
from uns_pose_ros.io.writing.target_lock import TargetLock, lock_target


def in_child(work: Any) -> int:
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            os._exit(1)
    return child


def test_who_comes_second_is_told_who_is_at_work(tmp_path: Path) -> None:
    target, held = tmp_path / "mug" / "clip_01", tmp_path / "held"

    def hold() -> None:
        lock = TargetLock(target)
        held.touch()
        time.sleep(60)
        lock.release()

    child = in_child(hold)
    while not held.exists():
        time.sleep(0.01)
    said = rf"clip_01: `.+` \(process {child}\) is at work here; wait for it, or end it"
    with pytest.raises(InvalidInput, match=said):
        TargetLock(target)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with lock_target(target):  # what a dead process held is free
        pass


def test_nothing_is_left_of_a_lock_and_of_the_folders_made_for_it(tmp_path: Path) -> None:
    with lock_target(tmp_path / "a" / "b" / "clip"):
        assert (tmp_path / "a" / "b").is_dir()
    assert not list(tmp_path.iterdir())


def test_of_many_processes_each_holds_the_lock_alone(tmp_path: Path) -> None:
    count = tmp_path / "count"
    count.write_text("0")

    def add() -> None:
        done = 0
        while done < 20:
            try:
                with lock_target(tmp_path / "clip"):
                    count.write_text(str(int(count.read_text()) + 1))
                    done += 1
            except InvalidInput:
                time.sleep(0.001)

    children = [in_child(add) for _ in range(4)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    assert count.read_text() == "80"


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_what_cannot_be_written_needs_no_lock_but_a_full_disk_is_said(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Any, *_: Any, **__: Any) -> int:
        raise OSError(code, os.strerror(code), path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        if code == errno.ENOSPC:
            with pytest.raises(DiskError, match=r"clip: cannot be written \(No space left"):
                TargetLock(tmp_path / "clip")
        else:
            TargetLock(tmp_path / "clip").release()
    assert not list(tmp_path.iterdir())
