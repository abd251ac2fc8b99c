"""What the metadata of a film say about its pixels: tracks, mirrors, pixels that are not square."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch

from fuzz_mutations import mutate
from source_files import checks, write_film
from uns_pose_ros.capture.film_tracks import read_film_tracks
from uns_pose_ros.capture.import_source import import_video
from uns_pose_ros.core.types import Camera
from uns_pose_ros.io.images import read_image


def boxes(data: bytes, start: int = 0) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and size of the boxes of an mp4 file."""
    while start + 8 <= len(data):
        size, kind = struct.unpack(">I4s", data[start : start + 8])
        size = size or len(data) - start
        yield kind, start, size
        start += size


def box_of(data: bytes, kind: bytes, start: int = 0) -> bytes:
    return next(data[at : at + size] for k, at, size in boxes(data, start) if k == kind)


def join_films(path: Path, films: Sequence[Path]) -> Path:
    """A film with the video track of each film, in this order."""
    contents = [film.read_bytes() for film in films]
    result, tracks = box_of(contents[0], b"ftyp"), b""
    for number, data in enumerate(contents, 1):
        media = next(at for kind, at, _ in boxes(data) if kind == b"mdat")
        shift = len(result) - media
        track = bytearray(box_of(box_of(data, b"moov"), b"trak", 8))
        offsets = track.find(b"stco") + 12
        for at in range(offsets, offsets + 4 * track[offsets - 1], 4):
            value = int.from_bytes(track[at : at + 4], "big") + shift
            track[at : at + 4] = value.to_bytes(4, "big")
        header = track.find(b"tkhd")
        track[header + 16 : header + 20] = number.to_bytes(4, "big")
        result, tracks = result + box_of(data, b"mdat"), tracks + bytes(track)
    inside = box_of(box_of(contents[0], b"moov"), b"mvhd", 8) + tracks
    path.write_bytes(result + struct.pack(">I4s", 8 + len(inside), b"moov") + inside)
    return path


def film_of(path: Path, scale: int, images: int = 9) -> Path:
    """A film of 64 x 48 px times a scale."""
    block = np.ones((scale, scale, 1), np.uint8)
    return write_film(path, [np.kron(checks(k), block) for k in range(images)])


def turn(path: Path, matrix: tuple[int, int, int, int]) -> None:
    data = bytearray(path.read_bytes())
    at = data.find(b"tkhd") + 4 + 40
    a, b, c, d = matrix
    values = [a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30]
    data[at : at + 36] = struct.pack(">9i", *values)
    path.write_bytes(data)


def imported(film: Path, **words: Any) -> tuple[np.ndarray, dict[str, Any]]:
    """The first image and the record of an import."""
    into = film.with_name("clip")
    import_video(film, into, **words)
    image = read_image(into / "images" / "000001.jpg").numpy()
    return image, json.loads((into / "video.json").read_text())


@pytest.mark.parametrize("order", [(1, 2), (2, 1), (1, 2, 1)])
def test_the_largest_video_track_is_imported_and_the_others_are_counted(
    tmp_path: Path, order: tuple[int, ...]
) -> None:
    films = [film_of(tmp_path / f"{k}.mp4", scale) for k, scale in enumerate(order)]
    image, record = imported(join_films(tmp_path / "film.mp4", films))
    assert image.shape == (96, 128, 3) and record["frames"] == 9
    assert record["left_out"] == {"further video tracks": len(order) - 1}
    assert [p.name for p in (tmp_path / "clip").iterdir() if p.name[0] == "."] == []


def test_a_cover_that_is_larger_than_the_film_is_not_the_film(tmp_path: Path) -> None:
    cover = film_of(tmp_path / "cover.mp4", 4, images=1)
    film = join_films(tmp_path / "film.mp4", [cover, film_of(tmp_path / "a.mp4", 1)])
    image, record = imported(film)
    assert image.shape == (48, 64, 3) and record["frames"] == 9


@pytest.mark.parametrize(
    "matrix", [(-1, 0, 0, 1), (1, 0, 0, -1), (0, 1, 1, 0), (0, -1, -1, 0)]
)
def test_a_mirrored_film_is_shown_as_its_matrix_says(
    tmp_path: Path, matrix: tuple[int, int, int, int]
) -> None:
    film = film_of(tmp_path / "film.mp4", 1)
    plain, _ = imported(film)
    turned = tmp_path / "other" / "film.mp4"
    turned.parent.mkdir()
    turned.write_bytes(film.read_bytes())
    turn(turned, matrix)
    image, _ = imported(turned)
    a, b, c, d = matrix
    wanted = plain if a else plain.transpose(1, 0, 2)
    wanted = wanted[:, ::-1] if min(a, c) < 0 else wanted  # x' = a x + c y
    wanted = wanted[::-1] if min(b, d) < 0 else wanted
    assert image.shape == wanted.shape
    assert np.abs(image.astype(int) - wanted).mean() < 6


def widen(film: Path, factor: float) -> Path:
    """The width at which the film is to be shown, into its track."""
    data = bytearray(film.read_bytes())
    entry = data.find(b"pasp")
    across = round(1000 * factor)
    if entry >= 0:
        data[entry + 4 : entry + 12] = struct.pack(">II", across, 1000)
    at = data.find(b"tkhd") + 4 + 76
    data[at : at + 4] = round(64 * factor * 65536).to_bytes(4, "big")
    film.write_bytes(data)
    return film


@pytest.mark.parametrize(("factor", "shape"), [(2.0, (48, 128)), (0.5, (96, 64))])
def test_pixels_that_are_not_square_are_stretched_and_said(
    tmp_path: Path, factor: float, shape: tuple[int, int]
) -> None:
    image, record = imported(widen(film_of(tmp_path / "film.mp4", 1), factor))
    assert image.shape[:2] == shape
    assert list(record["notes"]) == [
        "films whose pixels are not square, which are stretched"
    ]


def test_stored_pixels_are_kept_where_the_given_camera_is_theirs(tmp_path: Path) -> None:
    matrix = torch.tensor([[80.0, 0, 31.5], [0, 40.0, 23.5], [0, 0, 1]]).double()
    film = widen(film_of(tmp_path / "film.mp4", 1), 2.0)
    image, record = imported(film, camera=Camera(matrix, 64, 48))
    assert image.shape == (48, 64, 3) and record["camera"]["K"][0] == 80


def test_a_film_without_an_ending_is_known_by_its_content(tmp_path: Path) -> None:
    film = film_of(tmp_path / "film.mp4", 1).rename(tmp_path / "film")
    assert imported(film)[1]["frames"] == 9


def test_spoiled_headers_of_films_are_read_or_have_no_tracks(tmp_path: Path) -> None:
    data = film_of(tmp_path / "film.mp4", 1).read_bytes()
    for number in range(150):
        path = tmp_path / "spoiled.mp4"
        path.write_bytes(mutate(data, "film.mp4", Random(number)))
        assert len(read_film_tracks(path)) < 100
