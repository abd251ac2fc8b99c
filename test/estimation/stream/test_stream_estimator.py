"""Objects are followed with one pass each, and nothing is missed for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from small_model import CLIP
from streams import estimate, pose
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import Camera, PoseEstimate
from uns_pose_ros.estimation.estimator import Estimator, EstimatorConfig
from uns_pose_ros.estimation.fusion.fusion_config import FusionConfig
from uns_pose_ros.estimation.stream.expectation import Expectation
from uns_pose_ros.estimation.stream.stream_estimator import StreamConfig, StreamEstimator
from uns_pose_ros.estimation.tracker import Track, Tracker, TrackerConfig, TrackState
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.images import read_image
from uns_pose_ros.io.video_folder import load_video
from uns_pose_ros.networks.backbone_runtimes import Backbone

SECOND = 10**9


def car(x: float = 0.0, score: float = 0.6, category: str = "car") -> PoseEstimate:
    return estimate(pose((0.0, 0.0, 0.0), (x, 0.0, 1.0)), score, category=category)


def expectations(
    stream: StreamEstimator, seen: Sequence[Sequence[PoseEstimate]]
) -> list[Expectation | None]:
    """What is expected of images that show something, 0.1 s apart."""
    expected = []
    for k, estimates in enumerate(seen):
        expected.append(stream.expect(k * SECOND // 10))
        stream.update(estimates, expected[-1], k * SECOND // 10)
    return expected


def kinds(expected: Sequence[Expectation | None]) -> str:
    """A letter for each image: s like a single one, c crops only, w whole image too, t thorough."""
    return "".join(
        "s" if one is None else "t" if one.thorough else "w" if one.search else "c"
        for one in expected
    )


@pytest.mark.parametrize(
    ("every", "searched"),
    [(5, "ssccccwccccw"), (2, "sscwcwcwcwcw"), (1, "ssssssssssss")],
)
def test_an_object_that_is_tracked_is_searched_for_in_every_kth_image(
    every: int, searched: str
) -> None:
    stream = StreamEstimator(Tracker(), StreamConfig(every))
    assert kinds(expectations(stream, [[car()]] * 12)) == searched


def test_the_whole_image_is_searched_when_asked_and_then_after_k_images_again() -> None:
    stream = StreamEstimator(Tracker())
    expectations(stream, [[car()]] * 3)
    stream.search_next()
    later = [stream.expect(SECOND)]
    for k in range(5):
        stream.update([car()], later[-1], SECOND + k)
        later.append(stream.expect(SECOND + k + 1))
    assert kinds(later) == "wccccw"


@pytest.mark.parametrize(
    ("seen", "searched"),
    [
        ([[car()], [car()], [], [], [car()], [car()]], "sscssc"),  # lost
        ([[car(), car(1.0)]] * 3 + [[car()]] * 2, "sscct"),  # one of two lost
        ([[car()]] * 3 + [[car(), car(1.0)]] * 3, "sscctc"),  # a new one is tentative
        ([[car()]] * 3 + [[car(score=0.2)]] + [[car()]] * 2, "sscc" + "sc"),  # weak
        # a score that stays low becomes the usual one
        ([[car()]] * 3 + [[car(score=0.3)]] * 6, "sscc" + "ss" + "ccc"),
        ([[car()]] * 3 + [[]] * 25, "sscc" + "s" * 24),  # forgotten
    ],
)
def test_what_is_lost_new_or_weak_is_searched_for(
    seen: list[list[PoseEstimate]], searched: str
) -> None:
    assert kinds(expectations(StreamEstimator(Tracker()), seen)) == searched


def test_an_object_is_expected_where_its_motion_in_the_image_brings_it() -> None:
    stream = StreamEstimator(Tracker())
    expectations(stream, [[car(0.01 * k)] for k in range(4)])
    for stamp, x in ((0.4, 0.04), (0.45, 0.045), (0.9, 0.03)):
        (entry,) = stream.expect(round(stamp * SECOND)).objects  # type: ignore[union-attr]
        assert float(entry.estimate.cam_from_canon[0, 3]) == pytest.approx(x, abs=0.004)


def test_the_cameras_known_motion_is_expected_instead() -> None:
    stream = StreamEstimator(Tracker())
    expectations(stream, [[car(0.01 * k)] for k in range(4)])
    motion = pose((0.0, 0.0, 0.0), (-0.2, 0.0, 0.0))
    (entry,) = stream.expect(4 * SECOND // 10, motion).objects  # type: ignore[union-attr]
    assert float(entry.estimate.cam_from_canon[0, 3]) == pytest.approx(-0.17, abs=0.01)


def test_expecting_changes_no_track() -> None:
    asked, plain = StreamEstimator(Tracker()), Tracker()
    for k in range(6):
        moved = [car(0.02 * k)]
        asked.expect(k * SECOND, torch.eye(4, dtype=torch.float64))
        one, two = asked.update(moved, None, k * SECOND), plain.update(moved, k * SECOND)
        assert torch.equal(one[0].estimate.cam_from_canon, two[0].estimate.cam_from_canon)


def test_a_reset_and_stamps_that_go_back_expect_nothing() -> None:
    stream = StreamEstimator(Tracker())
    expectations(stream, [[car()]] * 4)
    assert stream.expect(0) is None
    stream.reset()
    assert stream.expect(SECOND) is None


def test_searching_every_0th_image_is_refused() -> None:
    with pytest.raises(InvalidInput, match="every 0: 1 to 1000 is valid"):
        StreamConfig(0)


class Counted:
    """A backbone that counts the tokens that it reads."""

    def __init__(self, backbone: Backbone) -> None:
        self._backbone, self.precision, self.tokens = backbone, backbone.precision, 0

    def __call__(self, images: Tensor, layers: Sequence[int]) -> Tensor:
        self.tokens += len(images) * images[0, 0].numel() // 14**2
        return self._backbone(images, layers)


class Film:
    """A stream of images of one chair, shown at places of a gray image or not at all."""

    def __init__(self, model: Path, width: int, height: int, search_size: int) -> None:
        # the search reads as many tokens as with the defaults, for crops of this model
        config = EstimatorConfig(search_size=search_size, score_threshold=0.1)
        self.model = artifacts.load_model(model)
        self.estimator = Estimator(self.model, device="cpu", config=config)
        self.backbone = Counted(self.estimator.backbone)
        self.estimator.backbone = self.backbone
        self.stream = StreamEstimator(Tracker())
        frame = load_video(CLIP).frames[4]
        self.chair = read_image(frame.image).numpy()
        # a long lens, in which a chair looks alike in all places
        matrix = [[4.0 * width, 0, width / 2], [0, 4.0 * width, height / 2], [0, 0, 1]]
        self.camera = Camera(torch.tensor(matrix, dtype=torch.float64), width, height)
        self.count = 0

    def show(
        self, *places: tuple[int, int], background: NDArray[np.uint8] | None = None
    ) -> list[Track]:
        """The tracks of the next image, with chairs at places x, y."""
        image = np.full((self.camera.height, self.camera.width, 3), 127, np.uint8)
        if background is not None:
            image[:] = background
        for x, y in places:
            image[y : y + len(self.chair), x : x + self.chair.shape[1]] = self.chair
        stamp = self.count * SECOND // 10
        self.count += 1
        self.backbone.tokens = 0
        expected = self.stream.expect(stamp)
        estimates = self.estimator(image, self.camera, expected=expected)
        return self.stream.update(estimates, expected, stamp)

    @property
    def crops(self) -> float:
        """What the last image took, in crops of the model."""
        return self.backbone.tokens / (self.model.crop_size / 14) ** 2


def test_one_object_takes_one_pass_and_a_half_at_most_and_dies_over_a_background(
    chair_model: Path,
) -> None:
    film = Film(chair_model, 310, 310, 140)
    taken = []
    for k in range(8):
        (track,) = film.show((2 * k, k))
        taken.append(film.crops)
    assert track.number == 0 and track.state == TrackState.TRACKED
    assert sum(taken[2:]) / len(taken[2:]) <= 1.5
    assert taken[2] == 1.0
    # something else in its place: a track must not see itself in the box that it predicts
    noise = np.random.default_rng(0).integers(0, 255, (310, 310, 3), np.uint8)
    for _ in range(3):
        seen = film.show(background=noise)
    assert 0 not in [track.number for track in seen]
    assert film.stream.tracker.tracks[0].state == TrackState.LOST
    (track,) = film.show((14, 7))
    assert track.number == 0  # comes back as itself


def test_a_new_object_is_there_within_k_images(chair_model: Path) -> None:
    film = Film(chair_model, 620, 300, 280)
    for _ in range(3):
        film.show((0, 0))
    counts = [len(film.show((0, 0), (320, 0))) for _ in range(StreamConfig.every - 1)]
    assert counts[0] == 1 and counts[-1] == 2


def test_five_objects_take_a_batch_of_five_and_a_third_at_most(chair_model: Path) -> None:
    film = Film(chair_model, 1200, 800, 546)
    film.stream.tracker.configure(TrackerConfig(min_hits=1), FusionConfig())
    places = [(0, 0), (400, 0), (800, 0), (200, 400), (600, 400)]
    taken = []
    for k in range(6):
        tracks = film.show(*((x + k, y) for x, y in places))
        taken.append(film.crops)
    assert len(tracks) == 5
    # five images after the first one; one of them is searched
    assert sum(one > 5 for one in taken[1:]) == 1
    assert sum(taken[1:]) / 5 / 5 <= 1.3
