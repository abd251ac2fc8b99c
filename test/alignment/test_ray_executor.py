"""Jobs in the processes of a Ray cluster.

The same results, in order, whatever happens to the processes.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from synthetic_meshes import feature_mesh
from uns_pose_ros.alignment.category.align_config import AlignConfig
from uns_pose_ros.alignment.category_alignment import align_videos
from uns_pose_ros.alignment.pairs.pair_config import PairConfig
from uns_pose_ros.alignment.ray_executor import Cluster
from uns_pose_ros.cli import main
from uns_pose_ros.core.errors import InvalidInput


@pytest.fixture(scope="module")
def local() -> Iterator[Cluster]:
    """Processes of this machine."""
    pytest.importorskip("ray")
    with Cluster("local") as cluster:
        yield cluster


def test_sigterm_is_still_for_the_command(local: Cluster) -> None:
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_results_come_in_order_though_a_process_is_killed(
    local: Cluster, tmp_path: Path
) -> None:
    def scaled(factor: int, job: int) -> int:
        mark = tmp_path / str(job)
        if job == 2 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return factor * job

    calls: list[tuple[str, int, int]] = []
    assert local.map(
        scaled, 10, range(5), lambda *words: calls.append(words), "numbers"
    ) == [0, 10, 20, 30, 40]
    assert (tmp_path / "2").exists()
    assert calls == [("numbers", k, 5) for k in range(1, 6)]


def test_an_alignment_by_a_cluster_is_the_one_made_here(local: Cluster) -> None:
    meshes = {
        f"clip_{k}": feature_mesh(k)[0] for k in range(9)
    }  # 36 pairs and their mirrored twins: several pieces of work
    config = AlignConfig(pair=PairConfig(hypotheses=100))
    here, there = (
        align_videos(meshes, config, device="cpu", cluster=cluster)
        for cluster in (None, local)
    )
    assert torch.allclose(there.canon_from_obj, here.canon_from_obj, atol=1e-4)
    assert torch.allclose(there.confidence, here.confidence, atol=1e-4)


def test_an_error_of_the_work_comes_through_as_it_is(local: Cluster) -> None:
    def refuse(common: None, job: int) -> int:
        raise InvalidInput(f"{job} is odd")

    with pytest.raises(InvalidInput, match="3 is odd"):
        local.map(refuse, None, [3])


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("127.0.0.1:1", "nothing answers"),
        ("nowhere", "no address"),
        ("here:99999", "no address"),
    ],
)
def test_a_cluster_that_is_not_there_is_one_line(
    monkeypatch: pytest.MonkeyPatch, address: str, reason: str
) -> None:
    monkeypatch.setitem(sys.modules, "ray", object())  # the address is looked at first
    with pytest.raises(
        InvalidInput,
        match=f'cluster "{address}": {reason}.*; valid are local, auto or HOST:PORT',
    ):
        Cluster(address).__enter__()


def test_without_ray_the_way_to_it_is_told(
    aligned_trucks: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main.main(["align", str(aligned_trucks), "--cluster", "local"]) == main.BAD_INPUT
    assert "pip install 'uns_pose_ros[cluster]'" in capsys.readouterr().err


def test_several_categories_are_aligned_by_one_command_and_a_bad_one_is_told_at_the_end(
    aligned_trucks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert (
        main.main(
            [
                "align",
                str(empty),
                str(aligned_trucks),
                "--align.pair.hypotheses=300",
                "--json",
                "-",
            ]
        )
        == main.BAD_INPUT
    )
    output = capsys.readouterr()
    record: dict[str, Any] = json.loads(output.out)
    assert list(record["categories"]) == [str(aligned_trucks)]
    assert str(empty) in output.err
