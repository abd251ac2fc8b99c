"""Files and folders appear whole or not at all; what dead processes left is put right."""

from __future__ import annotations

import errno
import logging
import os
import resource
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from uns_pose_ros.core.errors import DiskError, InvalidInput
from uns_pose_ros.core.types import CategoryModel
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.writing import replacement, staged_names
from uns_pose_ros.io.writing.replacement import (
    atomic_write,
    atomic_writes,
    check_room,
    check_writable,
    delete_strays,
    replace_folder,
)


@pytest.fixture(scope="module")
def dead() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def hidden(path: Path, process: int, kind: str, machine: str | None = None) -> Path:
    """A hidden name of a process."""
    start = staged_names.process_start(process) or 7
    owner = f"{machine or staged_names.machine_token()}-{process}-{start}-0123abcd"
    return path.with_name(f".{path.name}.{owner}.{kind}")


def fill(folder: Path, text: str) -> Path:
    folder.mkdir()
    (folder / "file").write_text(text)
    return folder


@pytest.fixture(params=["exchange", "two renames"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways in which a system swaps folders."""
    if request.param == "two renames":
        monkeypatch.setattr(replacement, "_exchange", lambda *_: False)


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path, either_way: None) -> None:
    target = fill(tmp_path / "masks", "old")
    with replace_folder(target) as new:
        (new / "other").write_text("new")
        assert (target / "file").read_text() == "old"
    assert [path.name for path in target.iterdir()] == ["other"]
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
def test_a_folder_stays_where_its_replacement_fails(
    tmp_path: Path, either_way: None, error: BaseException
) -> None:
    target = fill(tmp_path / "masks", "old")

    def replace_half() -> None:
        with replace_folder(target) as new:
            (new / "file").write_text("half")
            raise error

    with pytest.raises((DiskError, KeyboardInterrupt)):
        replace_half()
    assert (target / "file").read_text() == "old" and list(tmp_path.iterdir()) == [target]


def test_a_folder_that_was_moved_away_by_a_dead_process_comes_back_with_one_line(
    tmp_path: Path, dead: int, caplog: pytest.LogCaptureFixture
) -> None:
    target = tmp_path / "masks"
    fill(hidden(target, dead, "old"), "old")
    fill(hidden(target, dead, "new"), "new")
    with caplog.at_level(logging.WARNING):
        replacement.repair_folder(target)
    assert (target / "file").read_text() == "old" and list(tmp_path.iterdir()) == [target]
    assert [message.split(": ")[1] for message in caplog.messages] == [
        "what a stopped process left half made is deleted",
        "a process was stopped while it replaced this; the old is back",
    ]


def test_strays_of_the_dead_go_and_those_of_the_living_stay(
    tmp_path: Path, dead: int
) -> None:
    target = tmp_path / "a.json"
    gone = [hidden(target, dead, "tmp"), hidden(tmp_path / "b", dead, "tmp")]
    stale = hidden(target, dead, "tmp", "00000000")  # of another machine, two days ago
    kept = [
        hidden(target, os.getppid(), "tmp"),
        hidden(target, 1, "tmp"),
        hidden(tmp_path / "c", dead, "tmp", "00000000"),  # of another machine, now
        tmp_path / ".a.json.mine",
    ]
    for path in (*gone, stale, *kept):
        path.write_text("half")
    os.utime(stale, (0, 0))
    delete_strays(tmp_path)
    assert set(tmp_path.iterdir()) == set(kept)


def test_a_process_number_that_was_given_again_is_no_life(tmp_path: Path) -> None:
    path = hidden(tmp_path / "a.json", os.getpid(), "tmp")
    start = staged_names.process_start(os.getpid())
    earlier = path.with_name(path.name.replace(f"-{start}-", "-1-"))
    earlier.write_text("half")
    delete_strays(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", [".masks.making", ".masks.importing", ".masks.0a1b2c3d"])
def test_what_earlier_versions_left_of_a_folder_goes(tmp_path: Path, name: str) -> None:
    fill(tmp_path / name, "half")
    fill(tmp_path / ".other.making", "of another folder")
    with replace_folder(tmp_path / "masks") as new:
        (new / "file").write_text("whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.making", "masks"]


def test_of_two_files_none_is_replaced_where_the_second_cannot_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / "mesh.ply", tmp_path / "features"]
    for path in paths:
        path.write_text("old")
    replace, calls = os.replace, []

    def fail_second(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == 2:
            raise OSError(errno.EIO, "broken", source)
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail_second)
    said = r"features: cannot be written \(Input/output error\)"

    def write_both() -> None:
        with atomic_writes(paths) as staged:
            for path in staged:
                path.write_text("new")

    with pytest.raises(DiskError, match=said):
        write_both()
    assert [path.read_text() for path in paths] == ["old", "old"]
    assert sorted(tmp_path.iterdir()) == sorted(paths)


def test_a_name_as_long_as_the_disk_allows_is_written(tmp_path: Path) -> None:
    with atomic_write(tmp_path / ("a" * 255)) as staged:
        staged.write_text("whole")
    with replace_folder(tmp_path / ("b" * 255)) as new:
        (new / "file").write_text("whole")
    assert sorted(len(path.name) for path in tmp_path.iterdir()) == [255, 255]
    said = r"a+: cannot be written \(File name too long\); a shorter name is valid"
    with pytest.raises(DiskError, match=said):
        artifacts.write_json(tmp_path / ("a" * 256), {})


def test_a_device_is_written_and_not_replaced() -> None:
    said = r"/dev/full: cannot be written \(No space left on device\); free space"
    with pytest.raises(DiskError, match=said):
        artifacts.write_json(Path("/dev/full"), {})
    assert stat.S_ISCHR(Path("/dev/full").stat().st_mode)


def test_a_library_that_ends_the_process_on_a_full_disk_is_not_started_there(
    tmp_path: Path,
) -> None:
    check_room(tmp_path, 1)
    said = r"only \d+ MB are free and 1000000000 MB are needed; free space on that disk, or set"
    with pytest.raises(DiskError, match=said):
        check_room(tmp_path, 10**15)


def test_a_part_of_the_path_that_is_a_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for write in (lambda path: artifacts.write_json(path, {}), check_writable):
        with pytest.raises(InvalidInput, match="Not a directory.*a folder is needed there"):
            write(tmp_path / "file" / "a.json")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@contextmanager
def small_files(most: int) -> Iterator[None]:
    """Let no file grow beyond so many bytes; the libraries' own writes fail as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def large_model(value: float) -> CategoryModel:
    weights = {"weight": torch.full((20_000,), value)}
    features = torch.eye(3)
    triangle = torch.tensor([[0, 1, 2]])
    return CategoryModel("mug", torch.eye(3), triangle, features, features.clone(), weights)


def test_a_model_stays_whole_where_safetensors_itself_fails(tmp_path: Path) -> None:
    artifacts.save_model(large_model(1.0), tmp_path / "model")
    with small_files(4096), pytest.raises(DiskError, match="model: cannot be written"):
        artifacts.save_model(large_model(2.0), tmp_path / "model")
    assert float(artifacts.load_model(tmp_path / "model").head["weight"][0]) == 1.0
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_saved_model_keeps_what_else_is_in_its_folder(tmp_path: Path) -> None:
    artifacts.save_model(large_model(1.0), tmp_path / "model")
    (tmp_path / "model" / "notes.txt").write_text("mine")
    artifacts.save_model(large_model(2.0), tmp_path / "model")
    assert (tmp_path / "model" / "notes.txt").read_text() == "mine"
    assert float(artifacts.load_model(tmp_path / "model").head["weight"][0]) == 2.0


def draw(path: Path) -> None:
    from matplotlib.figure import Figure

    with atomic_write(path) as staged:
        Figure().savefig(staged, format="png")


def write_results(path: Path) -> None:
    import quick_work
    from uns_pose_ros.evaluation import rosbag_export
    from uns_pose_ros.evaluation.bag_figures import FrameResult

    (estimate,) = quick_work.OneInTheMiddle(None, "", None)(None, None)
    frames = [
        FrameResult(k, "camera", (estimate,), (1,), 0.1, None, None) for k in range(1, 40)
    ]
    rosbag_export.write_bag(path, frames, large_model(1.0))


@pytest.mark.parametrize(
    ("write", "name"), [(draw, "a.png"), (write_results, "a.mcap"), (write_results, "bag")]
)
def test_libraries_that_write_themselves_end_in_one_line_too(
    write: Callable[[Path], None], name: str, tmp_path: Path
) -> None:
    with small_files(600), pytest.raises(DiskError) as caught:
        write(tmp_path / name)
    assert "\n" not in str(caught.value) and name in str(caught.value)
    assert not list(tmp_path.iterdir())
