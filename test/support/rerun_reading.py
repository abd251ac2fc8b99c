"""Recordings for the viewer rerun, read with the readers of its package."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from PIL import Image

# value of a component (as Python lists) and the time on the line "stamp", ns, of each row
Rows = list[tuple[int, Any]]


def read_rerun(path: Path) -> dict[str, Rows]:
    """The timed rows of a recording by component, such as `/seconds:Scalars:scalars`."""
    try:
        from rerun.chunk import RrdReader
    except ImportError:  # before 0.30
        return _read_dataframe(path)
    found: dict[str, Rows] = {}
    for chunk in RrdReader(path).stream().to_chunks():
        if "stamp" not in chunk.timeline_names:
            continue
        batch = chunk.to_record_batch()
        stamps = batch.column("stamp").cast("int64").to_pylist()
        for name in batch.schema.names:
            if name.count(":") == 1:  # of a component, not of a time line
                values = batch.column(name).to_pylist()
                rows = found.setdefault(f"{chunk.entity_path}:{name}", [])
                # a cleared component is an empty list in one reader and nothing in the other
                rows += [row for row in zip(stamps, values, strict=True) if row[1]]
    return {name: sorted(rows, key=lambda row: row[0]) for name, rows in found.items()}


def _read_dataframe(path: Path) -> dict[str, Rows]:
    from rerun.dataframe import load_recording

    view = load_recording(path).view(index="stamp", contents="/**")
    table = view.select().read_all()
    stamps = table.column("stamp").cast("int64").to_pylist()
    found = {}
    for name in table.schema.names:
        if name.count(":") != 2 or name.startswith("/:"):
            continue
        values = table.column(name).to_pylist()
        found[name] = [row for row in zip(stamps, values, strict=True) if row[1]]
    return found


def image_sizes(rows: dict[str, Rows]) -> list[tuple[int, int]]:
    """Width and height of every JPEG at /camera, in order."""
    codes = [bytes(blobs[0]) for _, blobs in rows["/camera:EncodedImage:blob"]]
    return [Image.open(io.BytesIO(code)).size for code in codes]
