"""Whether a tracked object is at rest or moves, and how fast: two models that images compare.

Both models follow the pose that each image shows. The first says that the object is at rest in the
fixed frame, the second that its velocity stays. Each image adds the log of how much likelier it is
by the second model to the evidence. Only where the evidence is clear, the second model's pose is
used. The first one lags then, and reaches an object that stops within some images.

The fixed frame need not be known, only the motion of the camera in it: poses and velocities are
given in the axes of the newest camera.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from uns_pose_ros.core.geometry import (
    angle_between,
    from_parts,
    nearest_equivalent,
    nearest_rotation,
    rotation_from_vector,
    vector_from_rotation,
)
from uns_pose_ros.core.types import Symmetry
from uns_pose_ros.estimation.fusion.fusion_config import FusionConfig
from uns_pose_ros.estimation.fusion.pose_modes import PoseModes

_ACCELERATION = 0.2  # distances/s^1.5, change of a moving object's velocity
_TURN_ACCELERATION = 30.0  # deg/s^1.5
_SPEED = 0.5  # distances/s, standard deviation of a velocity that is not known
_TURN_SPEED = 90.0  # deg/s
_CLEAR = 3.0  # largest log likelihood ratio of one image: it may be wrong
_MEMORY = 0.9  # share of the evidence that remains one image later
_LOUDER = 10.0  # largest share by which an image may exceed its variance
_REST = -1.0  # least evidence: an object that was at rest for long may begin to move
_COAST = 0.5  # s, for which an object that is not seen keeps its velocity
_STOP = 0.5  # s, in which the velocity falls to a third after that
_DOUBT = 20.0  # degrees: largest doubt of the rotation by which an image's pose is sought


@dataclass(frozen=True, eq=False)
class ObjectMotion:
    """The two models of one object in the camera of one image."""

    rest_pose: Tensor  # (4, 4) float64, cam_from_canon if the object is at rest
    rest_covariance: Tensor  # (6, 6) float64, order and units as in PoseEstimate
    pose: Tensor  # (4, 4) float64, cam_from_canon if it moves
    velocity: Tensor  # (6,) float64, m/s and rad/s about the camera's axes
    covariance: Tensor  # (12, 12) float64, of pose and velocity
    last_pose: Tensor  # (4, 4) float64, cam_from_canon if it has stopped after the last image of it
    evidence: float = 0.0  # log likelihood of motion over rest, of the last images
    is_moving: bool = False
    # variance of the images over what their covariances say, at least 1
    noise: float = 1.0
    unseen: float = 0.0  # s since an image has shown the object


def start_motion(seen: PoseModes, metric: bool, distance: float) -> ObjectMotion:
    """Return the models of an object after its first image, at the image's likeliest pose.

    Args:
        seen: The modes of the image.
        metric: The poses are in m. If not, only the rotation may move.
        distance: Distance of the object from the camera.
    """
    covariance = seen.covariance[0]
    speed = torch.full((6,), math.radians(_TURN_SPEED), dtype=torch.float64)
    speed[:3] = _SPEED * distance if metric else 0.0
    return ObjectMotion(
        seen.pose[0],
        covariance,
        seen.pose[0],
        torch.zeros(6, dtype=torch.float64),
        torch.block_diag(covariance, torch.diag(speed**2)),
        seen.pose[0],
    )


def predict_motion(
    state: ObjectMotion,
    motion: Tensor,
    seconds: float,
    metric: bool,
    distance: float,
    config: FusionConfig,
) -> ObjectMotion:
    """Predict both models in the camera of a later image.

    Args:
        state: The models in the camera of the image before.
        motion: (4, 4) cam_now_from_cam_before, m.
        seconds: Time between the images.
        metric: The poses are in m. If not, only the motion's rotation is used.
        distance: Distance of the object from the camera.
        config: Settings of the fusion.
    """
    noise = _step_noise(seconds, metric, distance, config)
    lift = torch.block_diag(*[motion[:3, :3]] * 4)
    velocity = lift[:6, :6] @ state.velocity
    unseen = state.unseen + seconds
    step = velocity * (_coasted(unseen) - _coasted(state.unseen))
    moved = _carried(state.pose, motion, metric)
    pose = from_parts(
        rotation_from_vector(step[None, 3:])[0] @ moved[:3, :3], moved[:3, 3] + step[:3]
    )
    forward = torch.eye(12, dtype=torch.float64)
    forward[:6, 6:] = seconds * torch.eye(6, dtype=torch.float64)
    forward = forward @ lift
    return replace(
        state,
        rest_pose=_carried(state.rest_pose, motion, metric),
        rest_covariance=lift[:6, :6] @ state.rest_covariance @ lift[:6, :6].T
        + noise[:6, :6],
        pose=pose,
        velocity=velocity,
        covariance=forward @ state.covariance @ forward.T
        + noise
        + _acceleration_noise(seconds, metric, distance),
        last_pose=_carried(state.last_pose, motion, metric),
        unseen=unseen,
    )


def update_motion(
    state: ObjectMotion, seen: PoseModes, symmetry: Symmetry, config: FusionConfig
) -> ObjectMotion:
    """Update both models with the modes of one more image, and compare them.

    An image that shows no rotation near the models' is used for the position only.
    """
    index = _nearest_mode(state, seen, symmetry, config)
    image = seen.pose[max(index, 0)]
    noise = state.noise * seen.covariance[max(index, 0)]
    used = slice(0, 6 if index >= 0 else 3)
    rest = _innovation(state.rest_pose, image, symmetry)[used]
    moving = _innovation(state.pose, image, symmetry)[used]
    rest_spread = state.rest_covariance
    surprise, density = _log_normal(moving, (state.covariance[:6, :6] + noise)[used, used])
    likelihood = density - _log_normal(rest, (rest_spread + noise)[used, used])[1]
    louder = min(surprise / len(moving), _LOUDER)
    needed = math.log(max(1.0, config.motion_evidence))
    evidence = _MEMORY * state.evidence + max(-_CLEAR, min(_CLEAR, likelihood))
    evidence = max(_REST, min(evidence, needed + _CLEAR))
    gain = _gain(state.covariance, noise, used)
    step = gain @ moving
    pose = _stepped(state.pose, step[:6])
    covariance = _corrected(state.covariance, gain, noise, used)
    rest_gain = _gain(rest_spread, noise, used)
    return ObjectMotion(
        _stepped(state.rest_pose, rest_gain @ rest),
        _corrected(rest_spread, rest_gain, noise, used),
        pose,
        state.velocity + step[6:],
        covariance,
        pose,
        evidence,
        evidence > (0.0 if state.is_moving else needed),
        max(1.0, state.noise * (_MEMORY + (1 - _MEMORY) * louder)),
    )


def follow_motion(
    modes: PoseModes, state: ObjectMotion, symmetry: Symmetry, config: FusionConfig
) -> PoseModes | None:
    """Move all modes with a moving object, so that the first one has the pose of its model.

    Args:
        modes: The modes in the camera of the same image.
        state: The models.
        symmetry: Symmetry of the category.
        config: Settings of the fusion.

    Returns:
        The modes, as they were if the object is at rest; None: the first one is turned too far
        from the models' pose, which is that of another mode.
    """
    model = state.pose if state.is_moving else state.rest_pose
    first = modes.pose[0]
    turned = nearest_equivalent(
        model[None, :3, :3], first[None, :3, :3], symmetry.order, symmetry.axis
    )[0]
    if float(angle_between(turned, first[:3, :3])) > config.merge_angle_deg + 2 * _DOUBT:
        return None
    if not state.is_moving:
        return modes
    pose = modes.pose.clone()
    pose[:, :3, :3] = nearest_rotation(turned @ first[:3, :3].T @ pose[:, :3, :3])
    pose[:, :3, 3] += model[:3, 3] - first[:3, 3]
    covariance = state.covariance[:6, :6].expand_as(modes.covariance)
    return replace(modes, pose=pose, covariance=covariance)


def _coasted(unseen: float) -> float:
    """Time for which an object has kept its velocity, if it was not seen for some time, s."""
    late = max(0.0, unseen - _COAST)
    return min(unseen, _COAST) + _STOP * (1 - math.exp(-late / _STOP))


def _carried(pose: Tensor, motion: Tensor, metric: bool) -> Tensor:
    """A pose (4, 4) in the camera that has moved."""
    position = pose[:3, 3]
    if metric:
        position = motion[:3, :3] @ position + motion[:3, 3]
    return from_parts(motion[:3, :3] @ pose[:3, :3], position)


def _step_noise(
    seconds: float, metric: bool, distance: float, config: FusionConfig
) -> Tensor:
    """Covariance (12, 12) that an object at rest gets between two images."""
    sigma = torch.zeros(12, dtype=torch.float64)
    sigma[:3] = distance * (
        config.translation_process_noise
        if metric
        else config.unknown_motion_translation_noise
    )
    sigma[3:6] = math.radians(config.rotation_process_noise)
    return torch.diag(sigma**2 * seconds)


def _acceleration_noise(seconds: float, metric: bool, distance: float) -> Tensor:
    """Covariance (12, 12) by changes of the velocity between two images."""
    sigma = torch.full((6,), math.radians(_TURN_ACCELERATION), dtype=torch.float64)
    sigma[:3] = _ACCELERATION * distance if metric else 0.0
    square = torch.diag(sigma**2)
    both = square * seconds**2 / 2
    return torch.cat(
        [
            torch.cat([square * seconds**3 / 3, both], 1),
            torch.cat([both, square * seconds], 1),
        ]
    )


def _nearest_mode(
    state: ObjectMotion, seen: PoseModes, symmetry: Symmetry, config: FusionConfig
) -> int:
    """Index of the image's likeliest mode that is turned like the model in use; -1: none is."""
    model = state.pose if state.is_moving else state.rest_pose
    rotation = seen.pose[:, :3, :3]
    expected = model[:3, :3].expand_as(rotation)
    turned = nearest_equivalent(rotation, expected, symmetry.order, symmetry.axis)
    angle = angle_between(expected, turned)
    variance = float(state.covariance.diagonal()[3:6].mean())
    doubt = min(math.degrees(math.sqrt(variance)), _DOUBT)
    near = angle < config.merge_angle_deg + doubt
    if not bool(near.any()):
        return -1
    likely = (seen.log_weight.exp() - config.outlier_probability).clamp_min(0)
    support = likely * torch.exp(
        -0.5 * angle**2 / (config.measurement_sigma_deg**2 + doubt**2)
    )
    return int(torch.where(near, support, -1.0).argmax())


def _innovation(pose: Tensor, image: Tensor, symmetry: Symmetry) -> Tensor:
    """Step (6,) from a pose to the image's, m and rad."""
    rotation = pose[None, :3, :3]
    turned = nearest_equivalent(
        image[None, :3, :3], rotation, symmetry.order, symmetry.axis
    )
    turn = vector_from_rotation(turned @ rotation.transpose(-1, -2))[0]
    return torch.cat([image[:3, 3] - pose[:3, 3], turn])


def _log_normal(innovation: Tensor, covariance: Tensor) -> tuple[float, float]:
    """Squared Mahalanobis distance, and log density but for a constant of the dimension."""
    root = torch.linalg.cholesky(covariance)
    scaled = torch.linalg.solve_triangular(root, innovation[:, None], upper=False)
    square = float(scaled.square().sum())
    return square, -0.5 * square - float(root.diagonal().log().sum())


def _gain(spread: Tensor, noise: Tensor, used: slice) -> Tensor:
    """Kalman gain of a measurement of the pose's `used` numbers."""
    total = spread[used, used] + noise[used, used]
    return torch.linalg.solve(total, spread[used]).T


def _stepped(pose: Tensor, step: Tensor) -> Tensor:
    rotation = nearest_rotation(rotation_from_vector(step[None, 3:])[0] @ pose[:3, :3])
    return from_parts(rotation, pose[:3, 3] + step[:3])


def _corrected(spread: Tensor, gain: Tensor, noise: Tensor, used: slice) -> Tensor:
    """Covariance after a measurement; Joseph's form stays positive."""
    rest = torch.eye(len(spread), dtype=torch.float64)
    rest[:, used] -= gain
    return rest @ spread @ rest.T + gain @ noise[used, used] @ gain.T
