"""Images of a place, for a training: few, sharp, spread over a recording, and different.

A bag, a film or a folder of images is read image by image, twice. The first reading measures how
sharp the images are; the second looks at the sharpest one of each stretch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from uns_pose_ros.capture import import_movie
from uns_pose_ros.capture.film_tracks import is_film_content
from uns_pose_ros.capture.keyframes import KeyframeConfig, measure_frame
from uns_pose_ros.capture.video_writer import select_sharpest
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.left_out import LeftOut
from uns_pose_ros.core.types import Progress
from uns_pose_ros.io.encoded_image import EncodedImage
from uns_pose_ros.io.image_metadata import read_upright
from uns_pose_ros.io.images import Pixels, is_image_file, natural_order, shrunk
from uns_pose_ros.io.ros import rosbag
from uns_pose_ros.io.ros.ros_messages import decode_image
from uns_pose_ros.io.writing.replacement import disk_errors, repair_folder, staged_folder
from uns_pose_ros.io.writing.target_lock import lock_target

_MOST = 10_000_000  # images of a source
_MEASURED = 3000  # images that are measured, about
_STRETCHES = 4  # for each wanted image
_SMALL = (16, 12)  # px, width and height of the images that are compared
_NEIGHBORS = 15  # images on either side with which the sharpness of an image is compared
_BLURRED = 0.4  # of their median sharpness
_LONGEST = 1024  # px, longer side of what is written
_QUALITY = 95  # of the JPEG files
# folders of videos, also of CO3D, that hold no images of a place
_OTHERS = {"masks", "depth", "depths", "depth_masks"}
_VALID = "a bag, a film or a folder with images is valid"

# reasons
DARK, OVEREXPOSED = "images that are too dark", "overexposed images"
BLURRED = "images that are less sharp than those around them"
SEEN = "images in which the model sees the object"
ALIKE = "images that are like another one"
FURTHER = "images beyond --count, which differ less"

Judge: TypeAlias = Callable[[Pixels], bool]
_Images: TypeAlias = Iterator[tuple[int, Callable[[], Pixels]]]


@dataclass(frozen=True)
class BackgroundConfig:
    """Which images are chosen, and how many."""

    count: int = 40  # images, at most
    # smallest difference of two images, gray values; images of one view differ by 2 to 8, of two
    # places by 30 to 60
    difference: float = 12.0
    image_topic: str | None = None  # bags; not needed where there is one topic with images

    def __post_init__(self) -> None:
        if not 1 <= self.count <= 300:
            raise InvalidInput(f"count {self.count}: 1 to 300 is valid")
        if not 0 <= self.difference <= 255:
            raise InvalidInput(f"difference {self.difference:g}: 0 to 255 is valid")


@dataclass
class ChosenBackgrounds:
    """What was chosen of a source."""

    images: int  # of the source
    measured: int  # of them; the rest of a long source is not looked at
    names: list[str] = field(default_factory=list)
    seen: list[str] = field(
        default_factory=list
    )  # left out since the model sees the object
    left_out: LeftOut = field(default_factory=LeftOut)  # of those that were measured


@dataclass(frozen=True, eq=False)
class _Candidate:
    """The sharpest image of a stretch."""

    number: int
    sharpness: float
    small: NDArray[np.float32]  # (N,) colors of a small image, without its mean brightness


def write_backgrounds(
    source: Path,
    into: Path,
    config: BackgroundConfig = BackgroundConfig(),
    judge: Judge | None = None,
    doubtful: Path | None = None,
    progress: Progress = lambda what, done, total: None,
) -> ChosenBackgrounds:
    """Write images of a place into a new folder, which appears complete or not at all.

    Args:
        source: A bag, a film, or a folder that is searched with its subfolders.
        into: The folder to make.
        config: Settings.
        judge: Whether an image (H, W, 3) RGB shows the object; such images are left out.
        doubtful: A folder to make for the images that the judge left out; None: they are dropped.
        progress: Called after each image.

    Raises:
        InvalidInput: The source cannot be used, has no usable image, or a folder is there already.
        DiskError: The disk refuses a folder.
    """
    folders = [into] if doubtful is None else [into, doubtful]
    if doubtful is not None and (into == doubtful or into in doubtful.parents):
        raise InvalidInput(
            f"{doubtful}: lies in {into}, which a training searches; another folder is valid"
        )
    with ExitStack() as stack:
        for folder in folders:
            stack.enter_context(lock_target(folder))
            repair_folder(folder)
            if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
                raise InvalidInput(
                    f"{folder}: is there already; another name, or delete it. A training searches "
                    "subfolders too, so that each recording can have its own"
                )
        staged = [stack.enter_context(staged_folder(folder)) for folder in folders]
        read = _reader_of(source, config)
        sharp, chosen = _measure(source, read(), progress)
        picked = set(select_sharpest(list(sharp.values()), _STRETCHES * config.count))
        numbers = {n: s for k, (n, s) in enumerate(sharp.items()) if k in picked}
        for _ in range(len(sharp) - len(numbers)):
            chosen.left_out.add("images that are less sharp than the one of their stretch")
        candidates = _look(read(), numbers, staged, judge, chosen, source, progress)
        kept = _choose(candidates, config, chosen.left_out)
        for candidate in candidates:
            if candidate not in kept:
                (staged[0] / _name(candidate.number)).unlink()
        chosen.names = [_name(candidate.number) for candidate in kept]
        if not kept:
            reasons = "; ".join(chosen.left_out.lines()) or "it is empty"
            raise InvalidInput(f"{source}: no image can serve as a background: {reasons}")
        for folder, new in zip(folders, staged, strict=True):
            if any(new.iterdir()):
                with disk_errors(folder):
                    if folder.exists():
                        folder.rmdir()
                    new.rename(folder)
    return chosen


def _reader_of(source: Path, config: BackgroundConfig) -> Callable[[], _Images]:
    """A function that reads the source from its beginning.

    Raises InvalidInput if it is of no known kind.
    """
    if not source.exists():
        raise InvalidInput(f"{source}: not there; {_VALID}")
    if rosbag.is_bag(source):
        return lambda: _of_bag(source, config.image_topic)
    if source.is_dir():
        return lambda: _of_folder(source)
    if source.suffix.lower() in import_movie.ENDINGS or (
        not source.suffix and is_film_content(source)
    ):
        return lambda: _of_film(source)
    raise InvalidInput(f"{source}: of no known kind; {_VALID}")


def _of_bag(path: Path, wanted: str | None) -> _Images:
    with rosbag.open_bag(path) as reader:
        topic = rosbag.image_topic(path, rosbag.kinds_of(reader), wanted)
        for number, message in enumerate(rosbag.messages(path, reader, topic, _MOST)):
            yield number, partial(decode_image, message)


def _of_film(path: Path) -> _Images:
    for number, (image, _) in enumerate(import_movie.read_film(path, _MOST)):
        yield number, partial(np.ascontiguousarray, image)


def _of_folder(folder: Path) -> _Images:
    names = dict[Path, str]()
    for path in folder.rglob("*"):
        inside = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in inside.parts)
        if hidden or _OTHERS.intersection(inside.parts[:-1]):
            continue
        if path.is_file() and is_image_file(path):
            names[path] = inside.as_posix()
    for number, path in enumerate(sorted(names, key=lambda p: natural_order(names[p]))):
        yield number, partial(_read_pixels, path)


def _read_pixels(path: Path) -> Pixels:
    return read_upright(path).pixels


def _measure(
    source: Path, images: _Images, progress: Progress
) -> tuple[dict[int, float], ChosenBackgrounds]:
    """The sharpness of usable images by their number, ascending, and what else was there.

    Of a long source, one in so many images is measured, so that there are at most 2 * _MEASURED.
    """
    limits = KeyframeConfig()
    sharp, reasons = dict[int, float](), dict[int, tuple[str, str]]()
    step, count = 1, 0
    for number, decode in images:
        count = number + 1
        if number % step:
            continue
        try:
            stats = measure_frame(EncodedImage.of_pixels(decode()))
        except InvalidInput as error:
            reasons[number] = ("", str(error))
            continue
        if stats.bright < limits.darkest:
            reasons[number] = (DARK, "")
        elif stats.clipped > limits.clipped:
            reasons[number] = (OVEREXPOSED, "")
        else:
            sharp[number] = stats.sharpness
        if len(sharp) + len(reasons) >= 2 * _MEASURED:
            step *= 2
            sharp = {n: value for n, value in sharp.items() if not n % step}
            reasons = {n: why for n, why in reasons.items() if not n % step}
        progress(f"reading {source.name}", count, count)
    chosen = ChosenBackgrounds(count, len(sharp) + len(reasons))
    for reason, fault in reasons.values():
        if reason:
            chosen.left_out.add(reason)
        else:
            chosen.left_out.add_error("images", fault)
    clear = _without_blurred(sharp)
    for _ in range(len(sharp) - len(clear)):
        chosen.left_out.add(BLURRED)
    return clear, chosen


def _without_blurred(sharp: dict[int, float]) -> dict[int, float]:
    """Leave out the images that are much less sharp than their neighbors."""
    numbers, values = list(sharp), np.array(list(sharp.values()))
    return {
        number: float(values[k])
        for k, number in enumerate(numbers)
        if values[k]
        >= _BLURRED * np.median(values[max(0, k - _NEIGHBORS) : k + _NEIGHBORS + 1])
    }


def _look(
    images: _Images,
    numbers: dict[int, float],
    staged: Sequence[Path],
    judge: Judge | None,
    chosen: ChosenBackgrounds,
    source: Path,
    progress: Progress,
) -> list[_Candidate]:
    """Write the images of these numbers, with their sharpness; the judge sorts them."""
    candidates, done = list[_Candidate](), 0
    for number, decode in images:
        if number not in numbers:
            continue
        image, done = decode(), done + 1
        seen = judge is not None and judge(image)
        if seen:
            chosen.left_out.add(SEEN)
        if not seen or len(staged) > 1:
            path = staged[int(seen)] / _name(number)
            small = EncodedImage.of_pixels(shrunk(image, _LONGEST))
            with disk_errors(path):
                path.write_bytes(small.encoded(".jpg", _QUALITY)[0])
            if seen:
                chosen.seen.append(path.name)
        if not seen:
            candidates.append(_Candidate(number, numbers[number], _colors(image)))
        progress(f"choosing of {source.name}", done, len(numbers))
    return candidates


def _name(number: int) -> str:
    return f"{number:06d}.jpg"


def _colors(image: Pixels) -> NDArray[np.float32]:
    """The colors of a small image, without the mean brightness, which a camera regulates."""
    small = cv2.resize(image, _SMALL, interpolation=cv2.INTER_AREA).astype(np.float32)
    return np.asarray(small - small.mean(), np.float32).ravel()


def _choose(
    candidates: Sequence[_Candidate], config: BackgroundConfig, left_out: LeftOut
) -> list[_Candidate]:
    """The images that differ most: each next one is farthest from all before."""
    if not candidates:
        return []
    small = np.stack([candidate.small for candidate in candidates])
    kept = [int(np.argmax([candidate.sharpness for candidate in candidates]))]
    nearest = np.full(len(candidates), np.inf)
    while True:
        gap = np.sqrt(np.square(small - small[kept[-1]]).mean(1))
        nearest = np.minimum(nearest, gap)
        nearest[kept] = -1
        farthest = int(nearest.argmax())
        if nearest[farthest] < max(config.difference, 1e-6) or len(kept) == config.count:
            break
        kept.append(farthest)
    for distance in nearest[nearest >= 0]:
        left_out.add(ALIKE if distance < config.difference else FURTHER)
    return [candidates[k] for k in sorted(kept)]
