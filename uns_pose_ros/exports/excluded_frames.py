"""exclude.txt: the videos and frames of a category that a person struck out.

A line is a video (clip_03) or a frame (clip_03/000004.jpg); both may be shell patterns. The rest of
a line after # is a comment. The file stays beside the videos, so that every export leaves the same
out.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from uns_pose_ros.core.errors import InvalidInput, shorten
from uns_pose_ros.io.schema.decoding import read_file

EXCLUDE = "exclude.txt"
_MOST = 2**20  # bytes
_LONGEST = 1000  # characters of a line; some longer patterns take minutes to be compared


@dataclass(frozen=True)
class Exclusion:
    """The patterns of an exclude.txt."""

    path: Path
    lines: tuple[tuple[int, str], ...] = ()  # number and pattern

    def excludes_video(self, video: str) -> bool:
        """Whether a whole video is struck out."""
        return any(fnmatchcase(video, pattern) for _, pattern in self.lines)

    def excludes_frame(self, video: str, frame: str) -> bool:
        """Whether a frame is struck out, or its whole video."""
        name = f"{video}/{frame}"
        return self.excludes_video(video) or any(
            "/" in pattern and fnmatchcase(name, pattern) for _, pattern in self.lines
        )

    def check_names(self, frames: dict[str, list[str]]) -> None:
        """Check that every line names something.

        Args:
            frames: names of the images of every video of the category.

        Raises:
            InvalidInput: A line matches no video and no frame.
        """
        for number, pattern in self.lines:
            named = any(
                fnmatchcase(video, pattern)
                or any(fnmatchcase(f"{video}/{name}", pattern) for name in names)
                for video, names in frames.items()
            )
            if not named:
                raise InvalidInput(
                    f"{self.path}, line {number}: {pattern!r} is no video and no frame; a video "
                    f"({shorten(frames, 4)}) or VIDEO/IMAGE is valid"
                )


def read_exclusion(category: Path, path: Path | None = None) -> Exclusion:
    """Read what is struck out of a category.

    Args:
        category: the folder of the category.
        path: the file; None: exclude.txt of the category, which may be absent.

    Raises:
        InvalidInput: The file cannot be read.
    """
    place = path or category / EXCLUDE
    if path is None and not place.exists():
        return Exclusion(place)
    data = read_file(place, "list of what is struck out", _MOST)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidInput(f"{place}: not a text file in UTF-8") from None
    lines = []
    for number, line in enumerate(text.splitlines(), 1):
        pattern = line.partition("#")[0].strip().strip("/")
        if len(pattern) > _LONGEST:
            raise InvalidInput(
                f"{place}, line {number}: {len(pattern)} characters; at most {_LONGEST} are valid"
            )
        if pattern:
            lines.append((number, pattern))
    return Exclusion(place, tuple(lines))
