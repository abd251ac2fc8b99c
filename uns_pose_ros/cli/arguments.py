"""Arguments that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

Category = Annotated[
    Positional[Path], arg(metavar="CATEGORY", help="folder with one subfolder a video")
]
Categories = Annotated[
    Positional[tuple[Path, ...]],
    arg(metavar="CATEGORY...", help="folders with one subfolder a video, each a category"),
]
Videos = Annotated[
    str | None,
    arg(metavar="PATTERNS", help="only these videos: shell patterns, comma separated"),
]
Json = Annotated[
    str | None,
    arg(
        metavar="FILE",
        help="write the result as JSON too; -: to stdout, and nothing else there",
    ),
]
Device = Annotated[
    str,
    arg(
        metavar="NAME", help="auto (CUDA where there is one, else CPU), cpu, cuda or cuda:N"
    ),
]
Seed = Annotated[int, arg(metavar="N", help="of everything random")]
Up = Annotated[
    str | None,
    arg(
        metavar="AXIS",
        help="x, -x, y, -y, z or -z of the frame as computed: z from now on; auto: as the "
        "cameras were held",
    ),
]
Front = Annotated[
    str | None,
    arg(
        metavar="AXIS", help="x, -x, y, -y, z or -z of the frame as computed: x from now on"
    ),
]
Backgrounds = Annotated[
    Path | None,
    arg(
        metavar="DIR",
        help="images without the object, such as the robot's rooms and videos of others",
    ),
]
OnCluster = Annotated[
    str | None,
    arg(
        name="cluster",
        metavar="ADDRESS",
        help="align the pairs with Ray: local (on all cores), auto or HOST:PORT",
    ),
]
