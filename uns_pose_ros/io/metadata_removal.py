"""Copies of image files without what their metadata say about people, places and devices.

The pixels stay as they are, bit by bit: segments are left out and nothing is compressed again. Of
EXIF stay orientation, focal length and size; GPS, serial numbers, MakerNote, thumbnails, XMP, IPTC,
comments, color profiles and whatever follows the image go.
"""

from __future__ import annotations

import io
import re
import warnings
import zlib
from collections.abc import Iterator

from PIL import Image

_EXIF_IFD = 0x8769
_KEPT_TAGS = (0x0112,)  # orientation
# focal length, resolution in the focal plane, zoom, how it was rendered, size
_KEPT_IN_EXIF = (0x920A, 0xA405, 0xA20E, 0xA20F, 0xA210, 0xA404, 0xA401, 0xA002, 0xA003)
_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
_END_OF_SCAN = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_KEPT_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"sBIT", b"gAMA", b"sRGB")
_WEBP_PIXELS = (b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF")
_WEBP_EXIF, _WEBP_METADATA = 0x08, 0x2C  # flags: EXIF; ICC profile, EXIF and XMP
_LONGEST = 60_000  # bytes of EXIF; a segment of a JPEG file has at most 65,533


def remove_private_metadata(data: bytes) -> bytes | None:
    """A JPEG, PNG or WebP file with the same pixels and the metadata that are needed.

    None: the file is of another format, or not laid out as its format wants.
    """
    try:
        if data.startswith(_JPEG):
            return _clean_jpeg(data, _needed_exif(data))
        if data.startswith(_PNG):
            return _clean_png(data, _needed_exif(data))
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _clean_webp(data, _needed_exif(data))
    except (IndexError, ValueError):
        pass
    return None


def _needed_exif(data: bytes) -> bytes:
    """EXIF, as a TIFF file, with the tags that are needed; empty without any."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            given = Image.open(io.BytesIO(data)).getexif()
            inner = given.get_ifd(_EXIF_IFD)
            needed = Image.Exif()
            needed.update({tag: given[tag] for tag in _KEPT_TAGS if tag in given})
            kept = {tag: inner[tag] for tag in _KEPT_IN_EXIF if tag in inner}
            kept = {tag: value for tag, value in kept.items() if _is_plain(value)}
            if kept:
                needed.get_ifd(_EXIF_IFD).update(kept)
                needed[_EXIF_IFD] = kept
            exif = needed.tobytes().removeprefix(b"Exif\0\0") if len(needed) else b""
        except Exception:  # Pillow raises anything for broken EXIF, which then is of no use
            return b""
    return exif if len(exif) <= _LONGEST else b""


def _is_plain(value: object) -> bool:
    """Whether a value of EXIF is a number, and no text or list that could hold anything."""
    return not isinstance(value, str | bytes | tuple | list | dict)


def _clean_jpeg(data: bytes, exif: bytes) -> bytes:
    parts = [data[:2]]
    for kind, segment in _jpeg_segments(data):
        if kind == 0xE0 and segment[4:9] == b"JFIF\0":
            # without its thumbnail
            parts.append(b"\xff\xe0\0\x10" + segment[4:16] + b"\0\0")
        elif kind == 0xEE and segment[4:9] == b"Adobe":  # says how colors are stored
            parts.append(b"\xff\xee\0\x0e" + segment[4:16])
        elif not (0xE0 <= kind <= 0xEF or kind == 0xFE):
            parts.append(segment)
    if exif:
        payload = b"Exif\0\0" + exif
        at = 2 if parts[1][:2] == b"\xff\xe0" else 1
        parts.insert(at, b"\xff\xe1" + (len(payload) + 2).to_bytes(2, "big") + payload)
    return b"".join(parts)


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Marker and bytes of each segment behind the first two bytes; a scan has its data.

    ValueError where the file is cut off or not laid out in segments.
    """
    at = 2
    while True:
        while data[at : at + 2] == b"\xff\xff":
            at += 1
        if data[at] != 0xFF:
            raise ValueError("no marker")
        kind = data[at + 1]
        if kind == 0xD9:
            yield kind, data[at : at + 2]
            return
        end = at + 2
        if kind != 0x01 and not 0xD0 <= kind <= 0xD7:
            end += int.from_bytes(data[at + 2 : at + 4], "big")
        if end > len(data) or kind in (0x00, 0xD8):
            raise ValueError("cut off")
        if kind == 0xDA:
            found = _END_OF_SCAN.search(data, end)
            if found is None:
                raise ValueError("cut off")
            end = found.start()
        yield kind, data[at:end]
        at = end


def _clean_png(data: bytes, exif: bytes) -> bytes:
    parts, at = [_PNG], len(_PNG)
    while True:
        size, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        end = at + 12 + size
        if end > len(data):
            raise ValueError("cut off")
        if kind in _KEPT_CHUNKS:
            parts.append(data[at:end])
        if kind == b"IHDR" and exif:
            check = zlib.crc32(b"eXIf" + exif).to_bytes(4, "big")
            parts.append(len(exif).to_bytes(4, "big") + b"eXIf" + exif + check)
        if kind == b"IEND":
            return b"".join(parts)
        at = end


def _clean_webp(data: bytes, exif: bytes) -> bytes:
    parts, at, extended = [b"WEBP"], 12, False
    end = min(len(data), 8 + int.from_bytes(data[4:8], "little"))
    while at < end:
        kind, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        chunk = data[at : at + 8 + size + size % 2]
        if len(chunk) < 8 + size:
            raise ValueError("cut off")
        if kind == b"VP8X":
            extended = True
            flags = (data[at + 8] & ~_WEBP_METADATA) | (_WEBP_EXIF if exif else 0)
            chunk = chunk[:8] + bytes([flags]) + chunk[9:]
        if kind in (b"VP8X", *_WEBP_PIXELS):
            parts.append(chunk)
        at += len(chunk)
    if exif and extended:
        length = len(exif).to_bytes(4, "little")
        parts.append(b"EXIF" + length + exif + b"\0" * (len(exif) % 2))
    body = b"".join(parts)
    return b"RIFF" + len(body).to_bytes(4, "little") + body
