"""What a stopped training left is taken up whole, or not at all."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import fuzz_states
from plain_views import plain_views
from uns_pose_ros.core.types import Symmetry
from uns_pose_ros.io.checkpoint import Checkpoint
from uns_pose_ros.networks.correspondence_head import NetworkConfig
from uns_pose_ros.training import training_state
from uns_pose_ros.training.distributed import DistributedContext
from uns_pose_ros.training.head_training import fit_head
from uns_pose_ros.training.training_views import TrainConfig, check_left

Change = Callable[[dict[str, torch.Tensor], dict[str, Any]], object]
CHANGES: dict[str, Change] = {
    "a weight that is not finite": lambda t, _: t["head.enter.weight"].fill_(math.nan),
    "a weight of 1e30": lambda t, _: t["head.enter.weight"].fill_(1e30),
    "a weight of another shape": lambda t, _: t.update({"head.enter.bias": torch.ones(1)}),
    "no weight": lambda t, _: t.pop("head.enter.weight"),
    "a weight of no head": lambda t, _: t.update({"head.x": torch.ones(1)}),
    "a negative moment": lambda t, _: t["state.2.exp_avg_sq"].fill_(-1),
    "a moment of no parameter": lambda t, _: t.update({"state.99.step": torch.ones(())}),
    "half a moment": lambda t, _: t.pop("state.2.exp_avg"),
    "no random numbers": lambda t, _: t.pop("generator"),
    "random numbers that are none": lambda t, _: t.update({"generator": torch.ones(9)}),
    "a step behind the last": lambda _, f: f.update(step=999),
    "a step of another schedule": lambda _, f: f.update(step=2),
    "a step that is a text": lambda _, f: f.update(step="1"),
    "a curve from the future": lambda _, f: f["curve"].update(step=[7]),
    "a curve of two lengths": lambda _, f: f["curve"].update(step=[0, 0]),
    "a schedule of other settings": lambda _, f: f["schedule"].update(total_steps=7),
    "a rate of 1e9": lambda _, f: f["groups"][0].update(lr=1e9),
    "momentum of 2": lambda _, f: f["groups"][0].update(betas=[2, 0.9]),
    "another decay": lambda _, f: f["groups"][0].update(weight_decay=-5.0),
    "no groups": lambda _, f: f.update(groups=[]),
    "a list": lambda _, f: f.clear(),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_state_that_no_training_leaves_is_refused_with_one_line(
    what: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fuzz_states.write_training(tmp_path)
    work, parts = (
        Checkpoint(tmp_path / "state", fuzz_states.KEY),
        fuzz_states.training_parts(),
    )
    saved = work.load()
    assert saved is not None
    CHANGES[what](*saved)
    work.save(*saved)
    before = [weights.clone() for weights in parts.head.parameters()]
    assert training_state.resume_state(work, parts, fuzz_states.STEPS) == (0, {})
    work.close(done=True)
    (line,) = caplog.messages
    assert "no state of this training" in line and line.endswith("it begins anew")
    assert all(map(torch.equal, before, parts.head.parameters()))
    assert not parts.optimizer.state_dict()["state"]


def test_processes_that_stopped_at_different_steps_begin_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    fuzz_states.write_training(tmp_path)
    work = Checkpoint(tmp_path / "state", fuzz_states.KEY)
    parts = fuzz_states.training_parts()
    assert training_state.resume_state(work, parts, fuzz_states.STEPS)[0] == 1
    monkeypatch.setattr(DistributedContext, "is_common", lambda self, value: False)
    parts = fuzz_states.training_parts()
    assert training_state.resume_state(work, parts, fuzz_states.STEPS) == (0, {})
    work.close(done=True)
    assert "the other processes stopped at another step" in caplog.messages[-1]


def test_views_that_no_run_leaves_are_made_anew(tmp_path: Path) -> None:
    fuzz_states.write_training(tmp_path)
    work = Checkpoint(tmp_path / "state", fuzz_states.KEY)
    views = fuzz_states.kept_views(work)
    assert check_left(work.read_note("views"), views, 3) == (3, 4)
    assert check_left(None, views, 3) == (0, 0)
    for note in ([4, 4], [3, 5], [-1, 0], ["3", 4], [3], "x", {"a": 1}):
        with pytest.raises(ValueError, match=r"views of|Expected"):
            check_left(note, views, 3)
    for tensor, wrong in (
        (views.tokens, math.nan),
        (views.canon, 1e4),
        (views.weight, -1.0),
        (views.video, -1),
        (views.crop_from_cam, math.inf),
        (views.cam_from_canon, math.nan),
        (views.weight, math.inf),
    ):
        tensor[2] = wrong
        with pytest.raises(ValueError, match="numbers that no view holds"):
            check_left([3, 4], views, 3)
        assert check_left([3, 2], views, 3) == (3, 2)
        tensor[2] = 1
    views.canon[1] = math.nan  # cells that show no object
    assert check_left([3, 4], views, 3) == (3, 4)
    work.close(done=True)


def test_a_training_may_have_ten_steps() -> None:
    background = torch.zeros(2, 16, dtype=torch.bool)
    views = plain_views(torch.randn(2, 2, 2, 384), torch.rand(2, 16, 3), background)
    network = NetworkConfig(layers=(11,), width=8, blocks=1, features=4, clutter=2)
    config = TrainConfig(network=network, size=28, steps=10, batch=2)
    _, curve = fit_head(views, torch.rand(4, 3), Symmetry(), config)
    assert curve["step"] == [0, 9]
