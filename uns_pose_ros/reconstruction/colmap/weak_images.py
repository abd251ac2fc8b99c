"""Images that a model holds by few and bad observations.

Such an image was registered by matches some of which are wrong. It is off by degrees itself, and
bends the images beside it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_FEW = 0.25  # of the usual number of observations, below which an image can be weak
_BAD = 1.5  # times the usual error, above which it is
_MOST = 0.1  # of the images: if more are weak, the whole model is


def weak_images(model: Any) -> list[str]:
    """Names of the registered images of a pycolmap model that few and bad observations hold.

    Returns:
        The names; none where they are more than a tenth of the images.
    """
    points = {number: point.xyz for number, point in model.points3D.items()}
    names, counts, errors = [], [], []
    for image in model.images.values():
        if not image.has_pose:
            continue
        observed = [point for point in image.points2D if point.has_point3D()]
        names.append(image.name)
        counts.append(len(observed))
        errors.append(np.inf)
        if observed:
            places = np.array([points[point.point3D_id] for point in observed])
            seen = np.array([point.xy for point in observed])
            camera = model.cameras[image.camera_id]
            drawn = camera.img_from_cam(image.cam_from_world() * places)
            errors[-1] = float(np.linalg.norm(drawn - seen, axis=1).mean())
    few = np.array(counts) < _FEW * np.median(counts)
    bad = np.array(errors) > _BAD * np.median(errors)
    weak = [name for name, is_weak in zip(names, few & bad, strict=True) if is_weak]
    return weak if len(weak) <= _MOST * len(names) else []
