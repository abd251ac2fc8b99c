"""`weights` and `doctor` tell which pretrained weights are here; a file may give them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from command_line import run
from uns_pose_ros.cli import main
from uns_pose_ros.networks import pretrained_weights, weight_catalog


def test_weights_and_doctor_tell_what_is_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("weights", "--json", "-") == main.DONE
    listed = json.loads(capsys.readouterr().out)
    assert set(weight_catalog.NAMES) <= set(listed)
    assert all(one["intact"] for one in listed.values())
    assert run("doctor", "--json", "-") == main.DONE
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert found["torch"] == torch.__version__
    assert not found["missing_packages"]["estimate"] and not found["missing_weights"]


def test_weights_are_taken_from_a_file_without_saying_which_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = pretrained_weights.find("u2netp")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert run("weights", "--source", given, "--json", "-") == main.DONE
    state = {
        name: one["intact"] for name, one in json.loads(capsys.readouterr().out).items()
    }
    assert state == {"dinov2_vits14": False, "u2netp": True}
