"""What long work leaves is found again by the same work, and by nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.io.checkpoint import Checkpoint, drop_finished

WRITE_AND_DIE = """
import os, signal, sys, torch
from pathlib import Path
from uns_pose_ros.io.checkpoint import Checkpoint, drop_finished
work = Checkpoint(Path(sys.argv[1]), {"seed": 1})
work.array("numbers", (4, 3), torch.float32)[2] = 7.0
work.write_note("rows", 3)
work.save({"weight": torch.arange(5)}, {"step": 2, "rate": 0.1})
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_is_there(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", WRITE_AND_DIE, str(tmp_path / "work")])
    assert ended.returncode == -signal.SIGKILL
    work = Checkpoint(tmp_path / "work", {"seed": 1})
    assert work.array("numbers", (4, 3), torch.float32).sum(1).tolist() == [0, 0, 21, 0]
    assert work.read_note("rows") == 3 and work.read_note("others") is None
    left = work.load()
    assert left is not None
    assert left[0]["weight"].tolist() == [0, 1, 2, 3, 4] and left[1] == {
        "step": 2,
        "rate": 0.1,
    }


def test_other_work_finds_nothing_of_it(tmp_path: Path) -> None:
    work = Checkpoint(tmp_path, {"seed": 1})
    work.array("numbers", (4,), torch.float32)[:] = 1
    work.write_note("rows", 4)
    work.save({"weight": torch.ones(1)}, {})
    work.close(done=False)
    other = Checkpoint(tmp_path, {"seed": 2})
    assert other.load() is None and other.read_note("rows") is None
    assert other.array("numbers", (4,), torch.float32).tolist() == [0, 0, 0, 0]
    other.close(done=True)
    assert not tmp_path.exists()


def test_two_do_not_work_in_one_folder(tmp_path: Path) -> None:
    work = Checkpoint(tmp_path, {})
    with pytest.raises(InvalidInput, match=r"`\S+` \(process \d+\) is at work here"):
        Checkpoint(tmp_path, {})
    work.close(done=False)
    Checkpoint(tmp_path, {}).close(done=True)


def test_without_room_on_the_disk_work_goes_on_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    work = Checkpoint(tmp_path, {})
    array = work.array("numbers", (2, 2), torch.int64)
    array[1] = 5
    work.write_note("rows", 2)
    assert array.tolist() == [[0, 0], [5, 5]]
    assert work.read_note("rows") is None  # the rows are not on the disk


def keep_state(folder: Path) -> None:
    work = Checkpoint(folder, {"seed": 1})
    work.array("numbers", (40,), torch.float32)[:] = 1
    work.write_note("rows", 40)
    work.save({"weight": torch.ones(100)}, {"step": 2})
    work.close(done=False)


@pytest.mark.parametrize(
    "name", ["numbers.bin", "notes.json", "tensors.safetensors", "key.json"]
)
@pytest.mark.parametrize("damage", ["cut", "garbled", "empty"])
def test_spoiled_state_is_thrown_away_with_one_line(
    name: str, damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keep_state(tmp_path / "work")
    path = tmp_path / "work" / name
    data = path.read_bytes()
    middle = len(data) // 2
    changed = {
        "cut": data[:-5],
        "garbled": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :],
        "empty": b"",
    }
    path.write_bytes(changed[damage])
    work = Checkpoint(tmp_path / "work", {"seed": 1})
    if (name, damage) == ("numbers.bin", "garbled"):  # half of a write is no damage
        assert work.read_note("rows") == 40 and not caplog.messages
        return
    assert work.load() is None and work.read_note("rows") is None
    assert float(work.array("numbers", (40,), torch.float32).sum()) == 0
    lines = [line for line in caplog.messages if "is spoiled" in line]
    assert len(caplog.messages) == len(lines) <= 1
    assert lines or name == "key.json"  # the key of other work looks alike


def test_a_folder_in_place_of_a_file_of_the_state_is_thrown_away(tmp_path: Path) -> None:
    keep_state(tmp_path / "work")
    (tmp_path / "work" / "notes.json").unlink()
    (tmp_path / "work" / "notes.json").mkdir()
    work = Checkpoint(tmp_path / "work", {"seed": 1})
    assert work.load() is None and work.read_note("rows") is None


def test_state_of_finished_work_goes_and_that_of_other_work_stays(tmp_path: Path) -> None:
    keep_state(tmp_path / "work")
    drop_finished(tmp_path / "work", {"seed": 2})
    assert (tmp_path / "work" / "key.json").exists()
    drop_finished(tmp_path / "work", {"seed": 1})
    assert not list(tmp_path.iterdir())
