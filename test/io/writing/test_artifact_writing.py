"""A failed, killed or busy writer of an artifact leaves the whole old or the whole new one."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import socket
import subprocess
import sys
import time
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest
import torch

from small_artifacts import PROVENANCE, a_mesh, a_model, assert_equal, files
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import CategoryModel, FeatureMesh
from uns_pose_ros.io import artifacts


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    artifacts.write_json(path, 1)
    with pytest.raises(ValueError):
        artifacts.write_json(path, float("nan"))
    assert artifacts.read_json(path) == 1 and files(tmp_path) == {"a.json"}


def test_a_written_file_is_complete_before_it_gets_its_name(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    with artifacts.atomic_write(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"


def test_what_a_killed_process_left_half_written_is_gone_with_the_next_write(
    tmp_path: Path,
) -> None:
    path, dead = tmp_path / "alignment.json", subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    host = socket.gethostname()
    left = tmp_path / f".alignment.json.{host}-{dead.pid}.tmp"
    alive = tmp_path / f".alignment.json.{host}-{os.getppid()}.tmp"
    elsewhere, other = (
        tmp_path / f".alignment.json.not{host}-{dead.pid}.tmp",
        tmp_path / f".model.json.{host}-{dead.pid}.tmp",
    )
    for stray in (left, alive, elsewhere, other):
        stray.write_text("half")
    artifacts.write_json(path, {})
    assert set(tmp_path.iterdir()) == {path, alive, elsewhere}


def alternate(folder: Path, ended: Event) -> None:
    """Save one of two models and one of two meshes in turn."""
    turn = 0
    while not ended.is_set():
        turn += 1
        artifacts.save_model(a_model() if turn % 2 else changed_model(), folder / "model")
        artifacts.save_feature_mesh(
            a_mesh() if turn % 2 else changed_mesh(), folder / "clip", PROVENANCE
        )


def changed_model() -> CategoryModel:
    model = a_model()
    return dataclasses.replace(
        model,
        category="cup",
        vertices=model.vertices / 2,
        vertex_features=-model.vertex_features,
    )


def changed_mesh() -> FeatureMesh:
    mesh = a_mesh()
    return dataclasses.replace(mesh, vertices=mesh.vertices / 2, features=-mesh.features)


def test_a_reader_beside_a_writer_gets_the_whole_old_or_the_whole_new_artifact(
    tmp_path: Path,
) -> None:
    artifacts.save_model(a_model(), tmp_path / "model")
    artifacts.save_feature_mesh(a_mesh(), tmp_path / "clip", PROVENANCE)
    context = multiprocessing.get_context("fork")
    ended = context.Event()
    writer = context.Process(target=alternate, args=(tmp_path, ended), daemon=True)
    writer.start()
    read, refused = {"mug": 0, "cup": 0}, list[str]()
    begun = time.monotonic()

    def is_enough() -> bool:
        """Either may stand still for seconds; a reader that gets nothing would go on for long."""
        return time.monotonic() - begun > (2.0 if min(read.values()) > 0 else 100.0)

    try:
        while writer.is_alive() and not is_enough():
            try:
                model = artifacts.load_model(tmp_path)
                mesh = artifacts.load_feature_mesh(tmp_path / "clip")
            except InvalidInput as error:
                refused.append(str(error))
                continue
            assert_equal(model, {"mug": a_model, "cup": changed_model}[model.category]())
            read[model.category] += 1
            old = torch.equal(mesh.vertices, a_mesh().vertices)
            assert_equal(mesh, a_mesh() if old else changed_mesh())
    finally:
        ended.set()
        writer.join()
    assert writer.exitcode == 0 and not any("\n" in line for line in refused)
    assert min(read.values()) > 0 and len(refused) <= sum(read.values()), (read, refused)
