"""What the metadata of an image (EXIF, XMP) say about its pixels: orientation and focal length.

This is the one reader of such metadata, for `import`, `estimate` and `view`. Metadata often
describe an earlier version of the image: programs shrink and crop images and keep the tags.
Therefore every focal length is checked against the size of the image and against the others, and a
doubt is returned with its reason.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from uns_pose_ros.core.camera import assumed_camera, centered_camera
from uns_pose_ros.core.types import Camera
from uns_pose_ros.io.images import (
    BROKEN,
    FEW_BITS,
    Pixels,
    decode,
    guarded_decoding,
    is_transparent,
    open_image,
)

_EXIF = 0x8769
_ORIENTATION = 0x0112
_MAKE, _MODEL, _LENS = 0x010F, 0x0110, 0xA434
_FISHEYES = re.compile("gopro|insta360|fish.?eye", re.IGNORECASE)
# tag of EXIF, and its name in XMP
_FOCAL = (0x920A, "exif:FocalLength")
_FOCAL_35 = (0xA405, "exif:FocalLengthIn35mmFilm")
_PER_UNIT = ((0xA20E, "exif:FocalPlaneXResolution"), (0xA20F, "exif:FocalPlaneYResolution"))
_UNIT = (0xA210, "exif:FocalPlaneResolutionUnit")
_ZOOM = (0xA404, "exif:DigitalZoomRatio")
_RENDERED = (0xA401, "exif:CustomRendered")
_EXIF_SIZE = ((0xA002, "exif:PixelXDimension"), (0xA003, "exif:PixelYDimension"))
_TIFF_SIZE = ((0x0100, "tiff:ImageWidth"), (0x0101, "tiff:ImageLength"))

_DIAGONAL_35 = 43.267  # mm, of a 35 mm film image; CIPA DCG-001 compares the diagonals
_MM = {2: 25.4, 3: 10.0, 4: 1.0, 5: 1e-3}  # units of resolution in mm; 2 is the default
_PANORAMA = 6  # of CustomRendered
# ProjectionType is optional in Google's photo sphere XMP; one of the others always is there
_PANORAMA_XMP = re.compile(
    rb"GPano:(?:ProjectionType|UsePanoramaViewer|FullPanoWidthPixels)(?:\s*=|>)"
)
_XMP_VALUE = rb"%s(?:\s*=\s*[\"']|>)\s*([^\"'<]{1,40})"

_AGREE = 1.2  # two focal lengths agree up to this factor
_AXES = 1.02  # pixels are square up to this factor
_ONE_MORE = 1.01  # a digital zoom below it is none

DOUBTED = "images whose focal length in the metadata is not used"
REPLACED = "images whose focal lengths in the metadata disagree"
PARTLY_DOUBTED = "images of whose focal lengths in the metadata one is not used"
UNCERTAIN = "images whose focal length is uncertain"
CROPPED = "images that were cropped, so that their principal point is unknown"
TURNED = "images that may have been turned already, since orientation and size disagree"
TRANSPARENT = "images with transparency, which is ignored"
FAINT = "images of 16 bits whose values use the lower bits only, so that they are dark"
FISHEYE = "images of a camera whose lens may be a fisheye, which is no pinhole camera"
PAGES = "files of several images, of which the first is used"
OF_PIXELS = (TURNED, TRANSPARENT, FAINT, PAGES)  # what counts with a known camera too


class Note(NamedTuple):
    """Something that a person must know about an image."""

    kind: str  # the same for all images with this fault
    detail: str


@dataclass(frozen=True)
class ImageMetadata:
    """Orientation and focal length of an image, and what is doubtful about them."""

    orientation: int = 1  # of EXIF: 1 is upright, 2 to 8 are turned or mirrored
    focal: float | None = None  # px of the stored image; None: unknown or not to be trusted
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, eq=False)
class UprightImage:
    """An image as a person sees it, turned by its metadata."""

    pixels: Pixels  # (H, W, 3) uint8 RGB
    turned: bool  # whether the stored pixels have another orientation
    format: str  # Pillow's name of the file's format
    metadata: ImageMetadata = field(default_factory=ImageMetadata)

    def camera(self) -> tuple[Camera, str]:
        """The camera of the upright image, and its source, "exif" or "assumed"."""
        height, width = self.pixels.shape[:2]
        if self.metadata.focal is None:
            return assumed_camera(width, height), "assumed"
        return centered_camera(self.metadata.focal, width, height), "exif"


def read_upright(path: Path) -> UprightImage:
    """Read an image and turn it as its metadata say.

    Raises InvalidInput if the image is broken, missing or too large; broken metadata only make a
    note.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # broken metadata become notes
        file = open_image(path, "image")
        metadata = read_metadata(file)
        image = decode(path, "image")
        with guarded_decoding(f"{path}: the image"):
            turn = metadata.orientation
            if file.format == "TIFF":  # new versions of Pillow turn it when they decode it
                turn = int(image.getexif().get(_ORIENTATION, 1))
            pixels = np.array(_transpose(image, turn).convert("RGB"))
            if is_transparent(image):
                note = Note(TRANSPARENT, "its hidden pixels are used too")
                metadata = replace(metadata, notes=(*metadata.notes, note))
            if image.info.get(FEW_BITS):
                note = Note(FAINT, "scale them to the full range of 16 bits")
                metadata = replace(metadata, notes=(*metadata.notes, note))
    kind = "JPEG" if file.format == "MPO" else str(file.format)
    return UprightImage(pixels, metadata.orientation != 1, kind, metadata)


def read_metadata(image: Image.Image) -> ImageMetadata:
    """Read orientation and focal length from the metadata of an image.

    The 35 mm equivalent of the focal length comes first: it does not depend on the number of
    pixels. Else it is the focal length times the resolution in the focal plane, which belongs to
    the size that the metadata record, and is scaled with the image from there.

    Args:
        image: An image of `open_image`; a TIFF that is decoded has lost its orientation.

    Returns:
        The metadata; everything broken or contradictory is left out with a note.
    """
    notes = list[Note]()
    if image.format not in ("MPO", "HEIF"):  # their other images are previews and depth
        count = _number_of_pages(image)
        if count > 1:
            notes.append(Note(PAGES, f"{count} images"))
    try:
        tags = _Tags(image)
        orientation = tags.orientation()
        focal, doubts = _choose_focal(image.size, tags)
    except BROKEN as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        notes.append(Note(DOUBTED, f"its EXIF is broken ({reason})"))
        return ImageMetadata(notes=tuple(notes))
    width, height = image.size
    sizes = list(tags.sizes())
    if orientation > 4 and width != height and sizes[:1] == [(height, width)]:
        recorded = f"{height} x {width} px"
        notes.append(Note(TURNED, f"{width} x {height} px, its metadata record {recorded}"))
    if name := tags.fisheye():
        notes.append(Note(FISHEYE, name))
    return ImageMetadata(orientation, focal, (*notes, *doubts))


def _number_of_pages(image: Image.Image) -> int:
    try:
        return int(getattr(image, "n_frames", 1))
    except BROKEN:
        return 1


def _transpose(image: Image.Image, orientation: int) -> Image.Image:
    """Turn an image as `ImageOps.exif_transpose` does, by an orientation that was read already."""
    methods = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    return image.transpose(methods[orientation]) if orientation in methods else image


class _Tags:
    """Numbers of EXIF, or of XMP where EXIF lacks them."""

    def __init__(self, image: Image.Image) -> None:
        _use_imagemagick_exif(image)
        self._main = image.getexif()
        self._exif = self._main.get_ifd(_EXIF)
        xmp = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or b""
        self.xmp = xmp.encode("utf-8", "replace") if isinstance(xmp, str) else bytes(xmp)
        # the size in a TIFF's own tags is that of its pixels
        self._is_tiff = image.format == "TIFF"

    def orientation(self) -> int:
        """EXIF's orientation, or XMP's where EXIF has none; 1 where it is none of 1 to 8."""
        value = _number(self._main.get(_ORIENTATION))
        if value is None and not self._is_tiff:
            value = self._xmp_number("tiff:Orientation")
        return int(value) if value is not None and value in range(1, 9) else 1

    def number(self, tag: tuple[int, str]) -> float | None:
        """The value of a tag, NaN where it is no number; None without the tag."""
        for tags in (self._exif, self._main):
            if tag[0] in tags:
                return _number(tags[tag[0]])
        return self._xmp_number(tag[1])

    def fisheye(self) -> str:
        """Name of the camera or lens where it is known for fisheye lenses; empty otherwise."""
        names = (self._main.get(_MAKE), self._main.get(_MODEL), self._exif.get(_LENS))
        return next((name for name in map(str, names) if _FISHEYES.search(name)), "")

    def _xmp_number(self, name: str) -> float | None:
        found = re.search(_XMP_VALUE % name.encode(), self.xmp)
        if found is None:
            return None
        numerator, _, denominator = found[1].decode("ascii", "replace").partition("/")
        return _number((_number(numerator), _number(denominator or "1")))

    def sizes(self) -> Iterator[tuple[float, float]]:
        """The sizes, width and height in px, that the metadata record for the image."""
        exif, main = self._exif, {} if self._is_tiff else self._main
        for tags, names in ((exif, _EXIF_SIZE), (main, _TIFF_SIZE)):
            yield from _size([_number(tags.get(tag)) for tag, _ in names])
        for names in (_EXIF_SIZE, _TIFF_SIZE):
            yield from _size([self._xmp_number(name) for _, name in names])


def _use_imagemagick_exif(image: Image.Image) -> None:
    """Read EXIF of a PNG from the text entry that ImageMagick calls APP1, unlike Pillow."""
    text = image.info.get("Raw profile type APP1")
    if text and "exif" not in image.info:
        data = bytes.fromhex("".join(str(text).split("\n")[3:]))
        if data.startswith(b"Exif\0\0"):
            image.info["exif"] = data


def _size(values: list[float | None]) -> Iterator[tuple[float, float]]:
    width, height = (value if value is not None else math.nan for value in values)
    if 1 <= width < 1e6 and 1 <= height < 1e6:
        yield width, height


def _number(value: Any) -> float | None:
    """A value of EXIF as a number; NaN where it is none."""
    if value is None:
        return None
    if isinstance(value, tuple) and len(value) == 1:
        value = value[0]
    try:
        if isinstance(value, tuple):
            numerator, denominator = value
            return float(numerator) / float(denominator)
        return float(value)
    except (TypeError, ValueError, ArithmeticError):
        return math.nan


class _Relation(NamedTuple):
    """How the stored image comes from the recorded one."""

    scale: float | None  # None: unknown
    full: tuple[float, float]  # px, the recorded image
    cropped: bool = False


def _relate(stored: tuple[int, int], recorded: tuple[float, float]) -> _Relation:
    """Compare sizes; an image may have been turned without its recorded size."""
    width, height = stored
    turned = recorded[::-1]
    for full in (recorded, turned):
        if abs(width * full[1] - height * full[0]) <= max(width, height, *full):
            return _Relation((width / full[0] + height / full[1]) / 2, full)
    for full in (recorded, turned):
        least = max(width / full[0], height / full[1])
        if least == 1:
            return _Relation(1.0, full, True)
    for full in (recorded, turned):
        least = max(width / full[0], height / full[1])
        if 1 / _AGREE <= least < 1:  # cropped, and shrunk by less than that
            return _Relation(1.0, full, True)
    return _Relation(None, recorded, True)


def _choose_focal(
    stored: tuple[int, int], tags: _Tags
) -> tuple[float | None, tuple[Note, ...]]:
    """The focal length, px of the stored image, and what is doubtful."""
    doubts = list[str]()
    if _PANORAMA_XMP.search(tags.xmp) or tags.number(_RENDERED) == _PANORAMA:
        return None, (Note(DOUBTED, "it is a panorama, which no pinhole camera takes"),)
    if tags.number(_FOCAL) is None and not tags.number(_FOCAL_35):
        return None, ()
    sizes = list(tags.sizes())
    relation = (
        _relate(stored, sizes[0]) if sizes else _Relation(1.0, (stored[0], stored[1]))
    )
    size = f"{stored[0]} x {stored[1]} px"
    if relation.scale is None:
        full = " x ".join(f"{side:g}" for side in relation.full)
        why = f"the image has {size}, its metadata describe {full} px of another shape"
        return None, (Note(DOUBTED, why),)
    focals = {
        "35": _of_equivalent(tags, relation, doubts),
        "plane": _of_focal_plane(tags, relation, doubts),
    }
    others = [_relate(stored, other).scale for other in sizes[1:]]
    unsure = [s for s in others if s is None or not _agree(s, relation.scale)]
    if unsure and focals["plane"] is not None and focals["35"] is None:
        doubts.append("its metadata record several sizes of the image")
        focals["plane"] = None
    for name, focal in focals.items():
        # between a view of 140 and of 2 degrees; anything else is a wrong entry
        if focal is not None and not 0.18 < focal / max(stored) < 29:
            doubts.append(f"{focal:.4g} px cannot be the focal length of {size}")
            focals[name] = None
    notes = [Note(CROPPED, f"{size} of {relation.full[0]:g} x {relation.full[1]:g} px")]
    focal, more = _reconcile(focals["35"], focals["plane"], tags.number(_ZOOM), doubts)
    return focal, (*(notes if relation.cropped and focal else ()), *more)


def _of_equivalent(tags: _Tags, relation: _Relation, doubts: list[str]) -> float | None:
    """The focal length, px, of the 35 mm equivalent; 0 means unknown in EXIF."""
    value = tags.number(_FOCAL_35)
    if not value:
        return None
    if not 0 < value < math.inf:
        doubts.append(f"its 35 mm equivalent is {value:g}")
        return None
    assert relation.scale is not None
    return value * math.hypot(*relation.full) / _DIAGONAL_35 * relation.scale


def _of_focal_plane(tags: _Tags, relation: _Relation, doubts: list[str]) -> float | None:
    """The focal length, px, of the resolution in the focal plane."""
    focal, (x, y) = tags.number(_FOCAL), (tags.number(tag) for tag in _PER_UNIT)
    if focal is None or x is None:
        return None
    if not 0 < focal < math.inf or not 0 < x < math.inf:
        doubts.append(f"its focal length is {focal:g} mm at {x:g} px per unit")
        return None
    if y is not None and not (y > 0 and _agree(x, y, _AXES)):
        doubts.append(f"its resolutions in the focal plane, {x:g} and {y:g}, differ")
        return None
    unit = tags.number(_UNIT)
    millimeters = _MM.get(2 if unit is None else int(unit) if math.isfinite(unit) else -1)
    if millimeters is None:
        doubts.append("its resolution in the focal plane has no unit")
        return None
    assert relation.scale is not None
    return focal * x / millimeters * relation.scale


def _reconcile(
    equivalent: float | None, plane: float | None, zoom: float | None, doubts: list[str]
) -> tuple[float | None, tuple[Note, ...]]:
    """Choose one of two focal lengths, px, and say what speaks against it."""
    zoom = zoom if zoom is not None and _ONE_MORE < zoom < 1000 else 1.0
    if equivalent is None or plane is None:
        focal = equivalent if plane is None else plane
        if focal is not None and zoom > _AGREE:
            why = f"a digital zoom of {zoom:.3g} may be part of it or not"
            if equivalent is None:
                return None, (Note(DOUBTED, why),)
            return focal, (Note(UNCERTAIN, why),)
        kind = DOUBTED if focal is None else PARTLY_DOUBTED
        return focal, tuple(Note(kind, doubt) for doubt in doubts[:1])
    if _agree(equivalent, plane) or _agree(plane * zoom, equivalent):
        return equivalent, ()
    if _agree(equivalent * zoom, plane):
        return plane, ()
    why = (
        f"{equivalent:.4g} px by the 35 mm equivalent, which is used, and {plane:.4g} px by the "
        "resolution in the focal plane"
    )
    return equivalent, (Note(REPLACED, why),)


def _agree(a: float, b: float, factor: float = _AGREE) -> bool:
    return max(a, b) <= factor * min(a, b)
