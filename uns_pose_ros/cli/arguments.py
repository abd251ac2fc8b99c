"""Arguments that several commands share."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any, get_type_hints

from tyro.conf import Positional, arg

from uns_pose_ros.core.settings import parameter_text
from uns_pose_ros.estimation.config import EstimatorConfig


def annotate_settings(settings: type) -> Any:
    """Return an annotation that gives tyro the texts of a settings dataclass.

    tyro reads texts from annotations only, so it parses a subclass whose fields are annotated.
    """
    types = get_type_hints(settings)
    fields = []
    for field in dataclasses.fields(settings):
        kind: Any = Annotated[types[field.name], arg(help=parameter_text(field))]
        kept = dataclasses.field(default=field.default, metadata=field.metadata)
        fields.append((field.name, kind, kept))
    annotated = dataclasses.make_dataclass(
        settings.__name__, fields, bases=(settings,), frozen=True
    )
    annotated.__doc__ = settings.__doc__
    return arg(constructor=annotated)


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
Host = Annotated[str, arg(help="address to serve; 0.0.0.0 lets other machines look")]
Port = Annotated[int, arg(help="port to serve; the next free one where it is in use")]
Seed = Annotated[int, arg(metavar="N", help="of everything random")]
Up = Annotated[
    str | None,
    arg(
        metavar="AXIS",
        help="x, -x, y, -y, z or -z of the frame as proposed: z from now on; auto (at first): as "
        "the cameras were held",
    ),
]
Front = Annotated[
    str | None,
    arg(
        metavar="AXIS",
        help="x, -x, y, -y, z or -z of the frame as proposed: x from now on; auto (at first): in "
        "the mirror plane of the shapes",
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
Estimation = Annotated[EstimatorConfig, annotate_settings(EstimatorConfig)]
