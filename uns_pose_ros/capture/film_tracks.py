"""The video tracks of an mp4 or mov file: sizes, turn and which is the film.

OpenCV decodes the first video track of a file. This may be a small preview, chapter images or the
cover. The other tracks are hidden from it in a copy.
"""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from uns_pose_ros.core.errors import InvalidInput

_MAX_HEADER = 256 * 2**20  # bytes of moov
_MAX_BOXES = 10_000
_EBML = b"\x1a\x45\xdf\xa3"  # mkv and webm
_NAMELESS = struct.Struct(">I4s")


class _Box(NamedTuple):
    kind: bytes
    start: int  # of its content
    end: int


@dataclass(frozen=True)
class FilmTrack:
    """A video track."""

    position: int  # bytes from the start of the file to the name of its box
    width: int  # px, as stored
    height: int
    samples: int  # 0: in fragments
    turn: tuple[float, float, float, float]  # a b c d: x' = a x + c y, y' = b x + d y

    @property
    def mirrored(self) -> bool:
        """Whether the image is shown mirrored."""
        a, b, c, d = self.turn
        return a * d - b * c < 0

    @property
    def oblique(self) -> bool:
        """Whether the image is shown turned by no multiple of 90 degrees."""
        a, b, c, d = (abs(value) for value in self.turn)
        return min(max(a, d), max(b, c)) > 0.02 * max(a, b, c, d)


def is_film_content(path: Path) -> bool:
    """Whether a file is a film by its first bytes: mp4, mov, mkv, webm or avi."""
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except OSError:
        return False
    avi = head.startswith(b"RIFF") and head[8:12] == b"AVI "
    return avi or head.startswith(_EBML) or head[4:8] in (b"ftyp", b"moov", b"wide")


def read_film_tracks(path: Path) -> tuple[FilmTrack, ...]:
    """The video tracks of an mp4 or mov file, in their order; none where it has no such header."""
    try:
        with path.open("rb") as file:
            position, header = _movie_header(file)
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read ({error.strerror})") from None
    tracks = []
    for box in _boxes(header, 0, len(header)):
        if box.kind == b"trak":
            track = _read_track(header, box, position)
            if track is not None:
                tracks.append(track)
    return tuple(tracks)


def choose_track(tracks: Sequence[FilmTrack]) -> int:
    """The number of the largest track; single images, such as a cover, only where all are."""
    films = [k for k, track in enumerate(tracks) if track.samples != 1]
    return max(
        films or range(len(tracks)), key=lambda k: (tracks[k].width * tracks[k].height, -k)
    )


def copy_with_one_track(
    path: Path, tracks: Sequence[FilmTrack], chosen: int, copy: Path
) -> None:
    """Copy a film so that readers see only one of its video tracks."""
    shutil.copyfile(path, copy)
    with copy.open("r+b") as file:
        for number, track in enumerate(tracks):
            if number != chosen:
                file.seek(track.position)
                file.write(b"free")


def _movie_header(file: BinaryIO) -> tuple[int, bytes]:
    """Position and content of moov; empty without it."""
    size = file.seek(0, os.SEEK_END)
    position = 0
    for _ in range(_MAX_BOXES):
        file.seek(position)
        head = file.read(16)
        if len(head) < 8:
            break
        length, kind = _NAMELESS.unpack(head[:8])
        begin = 8
        if length == 1 and len(head) == 16:
            begin, length = 16, int.from_bytes(head[8:], "big")
        end = size if length == 0 else position + length
        if kind == b"moov" and end - position - begin <= _MAX_HEADER:
            file.seek(position + begin)
            return position + begin, file.read(end - position - begin)
        if end < position + begin:
            break
        position = end
    return 0, b""


def _boxes(data: bytes, start: int, end: int) -> Iterator[_Box]:
    while start + 8 <= end:
        length, kind = _NAMELESS.unpack(data[start : start + 8])
        begin = start + 8
        if length == 1:
            begin, length = start + 16, int.from_bytes(data[start + 8 : start + 16], "big")
        stop = end if length == 0 else start + length
        if stop < begin or stop > end:
            return
        yield _Box(kind, begin, stop)
        start = stop


def _find(data: bytes, box: _Box, *kinds: bytes) -> _Box | None:
    for kind in kinds:
        inside = (b for b in _boxes(data, box.start, box.end) if b.kind == kind)
        found = next(inside, None)
        if found is None:
            return None
        box = found
    return box


def _read_track(data: bytes, box: _Box, position: int) -> FilmTrack | None:
    """A video track; None for sound and broken boxes."""
    handler = _find(data, box, b"mdia", b"hdlr")
    header = _find(data, box, b"tkhd")
    table = _find(data, box, b"mdia", b"minf", b"stbl")
    if handler is None or header is None or table is None:
        return None
    if data[handler.start + 8 : handler.start + 12] != b"vide":
        return None
    description = _find(data, table, b"stsd")
    sizes = _find(data, table, b"stsz") or _find(data, table, b"stz2")
    matrix = header.start + (52 if data[header.start : header.start + 1] == b"\1" else 40)
    if description is None or description.start + 44 > description.end:
        return None
    if matrix + 36 > header.end:
        return None
    entry = description.start + 8  # after version and count: size, name, …
    width, height = struct.unpack(">HH", data[entry + 32 : entry + 36])
    values = struct.unpack(">9i", data[matrix : matrix + 36])
    a, b, c, d = (values[k] / 65536 for k in (0, 1, 3, 4))
    samples = 0
    if sizes is not None and sizes.start + 12 <= sizes.end:
        samples = int.from_bytes(data[sizes.start + 8 : sizes.start + 12], "big")
    return FilmTrack(position + box.start - 4, width, height, samples, (a, b, c, d))
