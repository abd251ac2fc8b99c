"""The commands that show images and their poses in a browser, recorded or live."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from tyro.conf import Positional, arg

from uns_pose_ros.cli.arguments import Device, Estimation, Host, Port
from uns_pose_ros.cli.console import progress_bar
from uns_pose_ros.cli.model_commands import (
    CameraFile,
    Model,
    expand_folders,
    load_images,
)
from uns_pose_ros.core.camera import EFFECT_OF_ASSUMED_VIEW
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import Camera
from uns_pose_ros.estimation.config import EstimatorConfig
from uns_pose_ros.estimation.estimator import Estimator
from uns_pose_ros.evaluation import rosbag_evaluation
from uns_pose_ros.evaluation.bag_config import BagConfig
from uns_pose_ros.evaluation.bag_figures import FrameResult
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.ros import rosbag
from uns_pose_ros.visualization import browser_viewer
from uns_pose_ros.visualization.browser_viewer import Scene, Viewer

Sources = Annotated[
    Positional[tuple[Path, ...]],
    arg(metavar="BAG|IMAGE [IMAGE …]", help="a recorded bag, or images or folders of them"),
]


def view_command(
    model: Model,
    sources: Sources,
    camera: CameraFile = None,
    host: Host = "127.0.0.1",
    port: Port = 8080,
    image_topic: Annotated[
        str | None, arg(help="of the bag's images; without: the only one")
    ] = None,
    camera_info_topic: Annotated[
        str | None, arg(help="without: camera_info beside the images")
    ] = None,
    fixed_frame: Annotated[
        str | None,
        arg(help="TF frame of the bag that does not move with the camera: sharper poses"),
    ] = None,
    tf_topic: Annotated[
        str | None, arg(help="of the bag's transforms; without: that of the camera")
    ] = None,
    every: Annotated[int, arg(help="use only one in so many images of the bag")] = 1,
    device: Device = "auto",
    estimator: Estimation = EstimatorConfig(),
) -> None:
    """Estimate every image and show the result as a 3D scene in a browser until Ctrl-C.

    The scene shows camera, image, template and poses. It is for machines without RViz. Lengths are
    m, or diameters if the model does not know its size.
    """
    import viser  # noqa: F401  # reports a missing package before the estimation

    if not sources:
        raise InvalidInput("nothing to show: a recorded bag or images are needed")
    bag = BagConfig(
        image_topic,
        camera_info_topic,
        fixed_frame=fixed_frame,
        tf_topic=tf_topic,
        fuse=True,
        every=every,
    )
    find = Estimator(artifacts.load_model(model), device=device, config=estimator)
    scenes = (
        _bag_scenes(sources[0], find, bag)
        if rosbag.is_bag(sources[0])
        else _image_scenes(sources, find, camera)
    )
    shown = Viewer(scenes, browser_viewer.template_meshes(find.models), host, port)
    with contextlib.suppress(KeyboardInterrupt):
        print(f"{shown.address}  (Ctrl-C ends)", flush=True)
        # a signal that another thread is given is seen by this one only when it runs
        while True:
            time.sleep(0.5)
    shown.close()


def _bag_scenes(path: Path, find: Estimator, config: BagConfig) -> list[Scene]:
    scenes = list[Scene]()

    def keep(result: FrameResult, image: NDArray[np.uint8], camera: Camera) -> None:
        scenes.append(
            browser_viewer.make_scene(
                f"{result.stamp / 1e9:.3f} s",
                image,
                camera,
                result.estimates,
                [track + 1 for track in result.tracks],
            )
        )

    with progress_bar() as progress:
        rosbag_evaluation.estimate_bag_frames(path, find, config, progress, keep)
    return scenes


def _image_scenes(
    sources: tuple[Path, ...], find: Estimator, camera: Path | None
) -> list[Scene]:
    scenes, paths = list[Scene](), expand_folders(sources)
    with progress_bar() as progress:
        for loaded in load_images(paths, camera):
            note = ""
            if loaded.source == "assumed":
                note = f"no --camera: a view of 60° is assumed. {EFFECT_OF_ASSUMED_VIEW}"
            found = find(loaded.image, loaded.camera)
            scenes.append(
                browser_viewer.make_scene(
                    loaded.path.name,
                    loaded.image.numpy(),
                    loaded.camera,
                    found,
                    range(1, len(found) + 1),
                    note if found else find.describe_nothing(),
                )
            )
            progress("estimate", len(scenes), len(paths))
    return scenes


def view_live_command(
    node: Annotated[
        str, arg(help="name of the estimator node, with its namespace")
    ] = "/estimator",
    camera_info: Annotated[
        str, arg(metavar="TOPIC", help="camera_info of the node's camera")
    ] = "/camera_info",
    host: Host = "127.0.0.1",
    port: Port = 8080,
) -> None:
    """Show the results of a running estimator node in a browser until Ctrl-C.

    The scene shows the overlay image, templates and poses. The command needs ROS but no model.
    Lengths are those that the node publishes.
    """
    import viser  # noqa: F401  # reports a missing package before waiting

    try:
        from uns_pose_ros.nodes.estimator import live_viewer
    except ModuleNotFoundError as error:
        raise InvalidInput(
            f"ROS 2 is not there ({error.name}): source its setup.bash, or use the .venv of "
            "`make setup`"
        ) from None
    live_viewer.show_live_scene(node, camera_info, host, port)
