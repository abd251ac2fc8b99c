"""The adaptation of a model to a bag: what teaches, what judges, and which model is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("rosbags")
from rosbags.rosbag2 import StoragePlugin

from bag_writer import camera_info, make, raw, transform, write_bag
from small_model import one_triangle
from streams import HALF_TURN, estimate, orbit, pose
from uns_pose_ros.cli import main
from uns_pose_ros.cli.places import adapt_command
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import Camera, CategoryModel, PoseEstimate, TaughtObject
from uns_pose_ros.estimation.stream.expectation import Expectation
from uns_pose_ros.io import artifacts
from uns_pose_ros.pipeline import adaptation
from uns_pose_ros.pipeline.adaptation import Adaptation, AdaptConfig, adapt_model
from uns_pose_ros.training.adaptation.lesson_choice import Choice
from uns_pose_ros.training.adaptation.pseudo_labels import RecordedImage
from uns_pose_ros.training.adaptation.resting_objects import RestingObject, Sighting

IMAGES = 18
OBJECT = pose((10.0, -5.0, 70.0), (0.03, -0.02, 0.01))  # odom_from_canon


class Scripted:
    """An estimator that knows the true pose of image k, whose gray value is 10 k.

    It is `errors` degrees off, about six axes in turns: without a taught recording, with one, two.
    """

    backbone, device = None, torch.device("cpu")
    errors: Sequence[float] = (20.0, 5.0, 5.0)
    score = 0.6
    flipped: Sequence[int] = ()  # images that the adapted model sees flipped

    def __init__(self, model: CategoryModel, *_: object, **__: object) -> None:
        self.models = (model,)
        self._taught = len(model.taught)

    def __call__(
        self,
        image: np.ndarray | Tensor,
        camera: Camera,
        regions: None = None,
        depth: None = None,
        expected: Expectation | None = None,
    ) -> list[PoseEstimate]:
        k = round(float(np.asarray(image)[0, 0, 0]) / 10)
        turn = self.errors[self._taught]
        x, y, z = (turn * (-1) ** k * (k // 2 % 3 == axis) for axis in range(3))
        seen = orbit(IMAGES)[k] @ OBJECT @ pose((x, y, z), (0.0, 0.0, 0.0))
        if self._taught and k in self.flipped:
            seen = seen @ HALF_TURN
        return [estimate(seen, score=self.score, category="mug")]


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    messages: list[tuple[str, float, Any]] = [("/cam/camera_info", 99.0, camera_info(99.0))]
    for k, cam_from_odom in enumerate(orbit(IMAGES)):
        at = 100 + k / 10
        tf = [transform(at, "odom", "cam_optical", torch.linalg.inv(cam_from_odom).numpy())]
        image = np.full((48, 64, 3), 10 * k, np.uint8)
        messages.append(("/tf", at, make("tf2_msgs/msg/TFMessage", transforms=tf)))
        messages.append(("/cam/image_raw", at, raw(at, image)))
    topics = {topic for topic, _, _ in messages}
    write_bag(tmp_path / "bag", StoragePlugin.MCAP, topics, messages=messages)
    return tmp_path / "bag"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "mug" / "model"
    artifacts.save_model(one_triangle("mug", diameter=0.2), folder)
    (folder / "notes.txt").write_text("mine")
    return folder


@pytest.fixture
def lessons(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What taught, and stand-ins for networks."""
    taught = list[Any]()

    def views(
        model: CategoryModel,
        objects: Sequence[tuple[RestingObject, Sequence[Sighting]]],
        images: dict[int, RecordedImage],
        *_: object,
    ) -> None:
        taught.extend(objects)
        assert all(images[one.image].path.exists() for _, part in objects for one in part)

    def tune(*_: object) -> TaughtObject:
        return TaughtObject({}, torch.ones(384), torch.zeros(1))

    monkeypatch.setattr(adaptation, "Estimator", Scripted)
    monkeypatch.setattr(adaptation, "object_views", views)
    monkeypatch.setattr(adaptation, "replayed_views", lambda *_: None)
    monkeypatch.setattr(adaptation, "training_videos", lambda *_: None)
    monkeypatch.setattr(adaptation, "split_views", lambda _, count: [None] * count)
    monkeypatch.setattr(adaptation, "fine_tune", tune)
    return taught


def adapt(model: Path, bag: Path, **settings: Any) -> Adaptation:
    config = AdaptConfig("odom", **settings)
    return adapt_model(model, bag, config, None)  # type: ignore[arg-type]


def test_a_better_model_takes_the_place_of_the_model_before_which_stays_beside(
    model: Path, bag: Path, lessons: list[Any]
) -> None:
    answer = adapt(model.parent, bag)  # the folder of a category is understood too
    assert not answer.choice.reason and answer.choice.judgment is not None
    assert (answer.images, answer.taught, answer.held_out) == (IMAGES, 12, 6)
    before, after = answer.choice.judgment.before[0], answer.choice.judgment.after[0]
    assert before.acc15 == 0 and after.acc15 == 100
    [(thing, part)] = lessons
    assert [one.image for one in part] == list(range(12))
    assert thing.scale == pytest.approx(0.2, rel=0.02)
    assert torch.allclose(thing.fixed_from_canon, OBJECT, atol=0.02)
    [taught] = artifacts.load_model(model).taught
    assert torch.equal(taught.weight, torch.ones(384))
    assert (model / "notes.txt").read_text() == "mine"
    assert answer.before == model.with_name("model.before-adapt")
    assert not artifacts.load_model(answer.before).taught
    again = adapt(model, bag)
    assert again.choice.reason == "its held-out images are not better"


def test_a_second_adaptation_keeps_both_models_before(
    model: Path, bag: Path, lessons: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    adapt(model, bag)
    monkeypatch.setattr(Scripted, "errors", (20.0, 5.0, 2.0))
    assert adapt(model, bag).before == model.with_name("model.before-adapt-2")
    adapted = artifacts.load_model(model)
    assert len(adapted.taught) == 2, "what the first recording has taught is kept"
    history = adapted.provenance["adapted"]
    assert isinstance(history, list) and len(history) == 2
    assert history[0]["bag"] == "bag" and history[0]["after"]["acc15"] == 100


def test_a_model_that_is_worse_changes_nothing(
    model: Path, bag: Path, lessons: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Scripted, "flipped", [13])
    files = {path.name: path.read_bytes() for path in model.iterdir()}
    answer = adapt(model, bag)
    assert (
        answer.choice.reason == "its held-out images are not better"
        and answer.before is None
    )
    assert {path.name: path.read_bytes() for path in model.iterdir()} == files
    assert [path.name for path in model.parent.iterdir()] == ["model"]


def test_a_bag_that_cannot_teach_says_why(
    model: Path, bag: Path, lessons: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidInput, match="map"):
        adapt_model(model, bag, AdaptConfig("map"), None)  # type: ignore[arg-type]
    monkeypatch.setattr(Scripted, "score", 0.2)
    with pytest.raises(InvalidInput, match="no object can teach: objects of low scores: 1"):
        adapt(model, bag)
    monkeypatch.setattr(Scripted, "score", 0.6)
    monkeypatch.setattr(adaptation, "_LEAST_HELD_OUT", 7)
    with pytest.raises(InvalidInput, match="too few images for a part that is held out"):
        adapt(model, bag)
    with pytest.raises(InvalidInput, match="--steps 0: at least 1 is valid"):
        AdaptConfig("odom", steps=0)
    assert not lessons


def test_without_the_videos_of_the_training_nothing_tells_an_object_from_others(
    model: Path, bag: Path
) -> None:
    with pytest.raises(
        InvalidInput, match=r"no video that the model was trained on is in "
    ):
        adapt(model, bag)


def test_the_command_prints_both_models_and_which_one_is_kept(
    model: Path,
    bag: Path,
    lessons: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(adapt_command, "load_backbone", lambda **_: None)
    words = ["adapt", str(model), str(bag), "--fixed-frame", "odom"]
    assert main.main([*words, "--json", str(model.parent / "out.json")]) == 0
    text = capsys.readouterr().out
    assert "1 objects at rest in 18 images; 12 images taught, 6 judged" in text
    assert f"adapted; the model before is {model}.before-adapt" in text
    record = artifacts.read_json(model.parent / "out.json")
    assert record["kept"] == 1 and record["after"][0]["acc15"] == 100
    assert main.main(words) == 0
    text = capsys.readouterr().out
    assert "not kept, the model is as before" in text
    assert text.count("its held-out images are not better") == 1


def test_several_objects_that_are_not_kept_are_counted() -> None:
    choice = Choice(
        None, None, (0.0, 0.0), {"its held-out images are not better": 3}, "why"
    )
    answer = Adaptation(9, [], {}, 6, 3, choice)
    assert "not kept: its held-out images are not better: 3" in adapt_command._text(
        Path("model"), answer
    )
    alone = replace(choice, not_better={"why": 2})
    assert "not kept: why: 2" in adapt_command._text(
        Path("model"), replace(answer, choice=alone)
    )
