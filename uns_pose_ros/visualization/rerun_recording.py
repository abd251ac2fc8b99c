"""Images and the poses found in them as a recording for the viewer rerun.

The camera is the root of the scene: x right, y down, z forward. The package `rerun-sdk` (extra
`rerun`) is imported when a recording is made.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from uns_pose_ros.core.camera import resize_camera
from uns_pose_ros.core.errors import DiskError, InvalidInput
from uns_pose_ros.core.geometry import matrix_to_quaternion
from uns_pose_ros.core.types import Camera, CategoryModel, PoseEstimate
from uns_pose_ros.visualization.drawing import track_color

SUFFIX = ".rrd"
_LONGEST = 960  # px, longer side of the images that are kept
_QUALITY = 85  # of their JPEG
_PLANE = 0.25  # of the image from the camera, in distances of the nearest object


def check_rerun() -> None:
    """Raise InvalidInput, with the remedy, where the package is missing."""
    if importlib.util.find_spec("rerun") is None:
        raise InvalidInput(
            "a rerun recording needs the Python package rerun-sdk, which is missing: "
            "pip install 'uns_pose_ros[rerun]'"
        )


def check_rerun_path(path: Path) -> None:
    """Raise InvalidInput where a recording cannot be written to a path."""
    check_rerun()
    if path.suffix != SUFFIX:
        raise InvalidInput(f"{path}: a name that ends with {SUFFIX} is valid")
    if path.exists():
        raise InvalidInput(f"{path}: is there already; another name, or delete it")


class RerunRecording:
    """Writes images, objects and scores into a file, one image after the other."""

    def __init__(self, path: Path, models: Sequence[CategoryModel]) -> None:
        """Begin a recording.

        Args:
            path: The file.
            models: Their templates are shown.

        Raises:
            InvalidInput: The package is missing.
            DiskError: The disk refuses the file.
        """
        check_rerun()
        import rerun

        self._rerun: Any = rerun
        self.path = path
        self._shown: set[str] = set()
        self.set_models(models)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        except OSError as error:
            raise DiskError.of(error, path) or error from error
        self._stream = rerun.RecordingStream("uns_pose_ros")
        self._stream.save(str(path))
        self._stream.log("/", rerun.ViewCoordinates.RDF, static=True)

    @classmethod
    def in_folder(cls, folder: Path, models: Sequence[CategoryModel]) -> RerunRecording:
        """Begin a recording that is named by date and time of this moment."""
        name = time.strftime("%Y-%m-%d_%H-%M-%S")
        path = folder / f"{name}{SUFFIX}"
        number = 1
        while path.exists():
            number += 1
            path = folder / f"{name}_{number}{SUFFIX}"
        return cls(path, models)

    def __enter__(self) -> RerunRecording:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def set_models(self, models: Sequence[CategoryModel]) -> None:
        """Show the templates of these models from the next image on."""
        self._meshes = {
            model.category: (model.vertices.float().numpy(), model.triangles.numpy())
            for model in models
        }

    def add(
        self,
        stamp: int,
        image: NDArray[np.uint8],
        camera: Camera,
        estimates: Sequence[PoseEstimate],
        tracks: Sequence[int],
        seconds: float | None = None,
    ) -> None:
        """Add one image.

        Args:
            stamp: Time of the image, ns.
            image: (H, W, 3) uint8 RGB.
            camera: Camera of the image; its distortion is not shown.
            estimates: Poses in the image.
            tracks: Track of each.
            seconds: That the estimation took.
        """
        rerun, stream = self._rerun, self._stream
        stream.set_time("stamp", timestamp=np.datetime64(stamp, "ns"))
        self._add_image(image, camera, estimates)
        seen: set[str] = set()
        for estimate, track in zip(estimates, tracks, strict=True):
            name = f"/objects/{estimate.category}_{track}"
            seen.add(name)
            self._add_object(name, estimate, track)
            stream.log(f"/score{name}", rerun.Scalars([estimate.score]))
        for name in self._shown - seen:
            stream.log(name, rerun.Clear(recursive=True))
        self._shown = seen
        if seconds is not None:
            stream.log("/seconds", rerun.Scalars([seconds]))

    def close(self) -> None:
        """Write what is left and end the recording."""
        self._stream.flush()
        self._stream.disconnect()

    def _add_image(
        self, image: NDArray[np.uint8], camera: Camera, estimates: Sequence[PoseEstimate]
    ) -> None:
        """Add a small copy of the image before its camera."""
        rerun = self._rerun
        height, width = image.shape[:2]
        share = min(1.0, _LONGEST / max(height, width))
        if share < 1:
            size = (max(1, round(width * share)), max(1, round(height * share)))
            image = np.asarray(
                cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8
            )
            camera = resize_camera(camera, *size)
        _, code = cv2.imencode(
            ".jpg",
            cv2.cvtColor(image, cv2.COLOR_RGB2BGR),
            [cv2.IMWRITE_JPEG_QUALITY, _QUALITY],
        )
        distances = [float(one.cam_from_canon[2, 3]) for one in estimates]
        self._stream.log(
            "/camera",
            rerun.Pinhole(
                image_from_camera=camera.matrix.numpy(),
                resolution=[camera.width, camera.height],
                camera_xyz=rerun.ViewCoordinates.RDF,
                image_plane_distance=_PLANE * max(min(distances, default=1.0), 1e-3),
            ),
        )
        self._stream.log(
            "/camera",
            rerun.EncodedImage(contents=code.tobytes(), media_type="image/jpeg"),
        )

    def _add_object(self, name: str, estimate: PoseEstimate, track: int) -> None:
        """Add template, box and label in the object's frame, and the named frames."""
        rerun, stream = self._rerun, self._stream
        pose = estimate.cam_from_canon
        stream.log(
            name,
            rerun.Transform3D(
                translation=pose[:3, 3].numpy(),
                quaternion=_xyzw(pose[:3, :3]),
            ),
        )
        vertices, triangles = self._meshes[estimate.category]
        low, high = vertices.min(0) * estimate.scale, vertices.max(0) * estimate.scale
        if estimate.center is not None:
            middle, half = estimate.center.numpy(), estimate.size.numpy() / 2
            low, high = middle - half, middle + half
        color = [round(255 * part) for part in track_color(track)]
        stream.log(
            f"{name}/box",
            rerun.Boxes3D(
                centers=[(low + high) / 2],
                half_sizes=[(high - low) / 2],
                colors=[color],
                labels=[f"{estimate.category} {track}  {estimate.score:.2f}"],
            ),
        )
        stream.log(f"{name}/axes", self._axes(0.6 * float((high - low).max())))
        if name not in self._shown:  # it stays until the object is lost
            stream.log(
                f"{name}/template",
                rerun.Mesh3D(
                    vertex_positions=vertices,
                    triangle_indices=triangles.astype(np.uint32),
                    albedo_factor=color,
                ),
            )
        stream.log(f"{name}/template", rerun.Transform3D(scale=estimate.scale))
        for (
            placed
        ) in estimate.frames:  # beside the object: their poses are in the camera's frame
            stream.log(
                f"{name}/frames/{placed.name}", self._frame(estimate, placed.cam_from_frame)
            )
            length = 0.2 * float((high - low).max())
            stream.log(f"{name}/frames/{placed.name}/axes", self._axes(length))

    def _frame(self, estimate: PoseEstimate, cam_from_frame: Any) -> Any:
        """The transform of a named frame in that of its object."""
        local = estimate.cam_from_canon.inverse() @ cam_from_frame
        return self._rerun.Transform3D(
            translation=local[:3, 3].numpy(), quaternion=_xyzw(local[:3, :3])
        )

    def _axes(self, length: float) -> Any:
        """Arrows of a length along x, y and z, red, green and blue."""
        return self._rerun.Arrows3D(
            vectors=length * np.eye(3),
            colors=[[230, 40, 40], [40, 190, 40], [50, 90, 255]],
        )


def _xyzw(rotation: Any) -> NDArray[np.float64]:
    return np.roll(matrix_to_quaternion(rotation).numpy(), -1)
