"""Parts of a video that this program made: told from given ones, replaced whole, and noted.

A made part is a folder masks/ or sparse/ that made.json marks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from msgspec import convert

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.schema.decoding import describe, read_record
from uns_pose_ros.io.schema.made_record import MadeRecord
from uns_pose_ros.io.schema.video_record import (
    VIDEO_RECORD,
    MasksReport,
    PosesReport,
    read_video_entries,
    read_video_record,
)
from uns_pose_ros.io.writing.replacement import replace_folder
from uns_pose_ros.pipeline.provenance import MADE


def is_given(folder: Path) -> bool:
    """Whether a folder masks/ or sparse/ has content that this program did not make."""
    return folder.is_dir() and any(folder.iterdir()) and not (folder / MADE).exists()


def replace_made(
    target: Path,
    provenance: Mapping[str, Any],
    report: Mapping[str, Any],
    write: Callable[[Path], None],
) -> None:
    """Replace `target` by a new folder, with made.json in it."""
    with replace_folder(target) as new:
        write(new)
        artifacts.write_json(
            new / MADE,
            {"provenance": artifacts.plain(provenance), "report": artifacts.plain(report)},
        )


def note_report(folder: Path, key: str, target: Path) -> bool:
    """Copy the report of new poses or masks into video.json.

    Returns False, for callers that made nothing now.
    """
    report = read_record(target / MADE, MadeRecord, "record").report
    try:
        convert(report, PosesReport if key == "poses" else MasksReport)
    except ValueError as error:
        raise InvalidInput(
            f"{target / MADE}: not a valid report of {key} ({describe(error)})"
        ) from None
    entries = read_video_entries(folder)
    before = entries.get(key)
    if before != report:
        metric = read_video_record(folder).metric
        if key == "poses" and (
            "metres" in report or "metres" in (before or {})
        ):  # depth says so, nobody else
            metric = (report.get("metres") or {}).get("unit_m") is not None
        artifacts.write_json(
            folder / VIDEO_RECORD, {**entries, "metric": metric, key: report}
        )
    return False
