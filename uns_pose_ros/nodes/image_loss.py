"""How many large images get lost between two processes of this machine, and which setting helps.

A publisher and a subscriber run in processes of their own, so that settings of the middleware in
the environment hold, and so that images take the way that they take from a camera driver to a
node. `measure_image_loss` starts both; `image_trial_process` is their program.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.nodes.image_trial_process import TrialProcess

LARGE_DATA = "LARGE_DATA?max_msg_size=4MB&sockets_size=4MB&non_blocking=true"
SOCKET_BYTES = {
    "rmw_fastrtps": 4_000_000,
    "rmw_cyclonedds_cpp": 10 * 2**20,
}  # of those settings
FEW = 0.01  # share of lost images that does not matter
_PROFILES = "fastdds_large_images.xml"  # in config/
PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
_CYCLONE_XML = (
    "<CycloneDDS><Domain><Internal><SocketReceiveBufferSize min='10MB'/></Internal></Domain>"
    "</CycloneDDS>"
)
_SOCKET_LIMITS = (Path("/proc/sys/net/core/rmem_max"), Path("/proc/sys/net/core/wmem_max"))
_PATIENCE = 30.0  # s until the first image must arrive


@dataclass(frozen=True)
class TrialImages:
    """The images that a measurement sends."""

    width: int = 1920  # px
    height: int = 1080  # px
    rate: float = 30.0  # Hz
    seconds: float = 3.0  # s

    def __post_init__(self) -> None:
        """Refuse what cannot be sent."""
        if not (1 <= self.width <= 16384 and 1 <= self.height <= 16384):
            raise InvalidInput(
                f"--image-size {self.width} {self.height}: 1 to 16384 px are valid"
            )
        for name, value, most in (
            ("--rate", self.rate, 1000),
            ("--seconds", self.seconds, 600),
        ):
            if not 0 < value <= most:
                raise InvalidInput(f"{name} {value:g}: above 0 and up to {most} is valid")

    @property
    def count(self) -> int:
        """Number of images."""
        return max(1, round(self.rate * self.seconds))

    @property
    def megabytes_per_second(self) -> float:
        """Pixels of three bytes."""
        return self.width * self.height * 3 * self.rate / 1e6


@dataclass(frozen=True)
class ImageLoss:
    """What arrived of the images of one setting."""

    setting: str  # as it is printed
    environment: Mapping[str, str]  # of both processes, beside that of the caller
    reliable: bool
    sent: int = 0
    received: int = 0
    rate: float = 0.0  # Hz, achieved by the publisher
    longest_gap: float = 0.0  # s between images that arrived
    fault: str = ""  # why nothing was measured

    @property
    def lost(self) -> float:
        """Share of the images that did not arrive, 0 to 1."""
        return (self.sent - self.received) / self.sent if self.sent else 1.0

    def record(self) -> dict[str, object]:
        """The values for JSON."""
        return {
            "setting": self.setting,
            "environment": dict(self.environment),
            "reliable": self.reliable,
            "sent": self.sent,
            "received": self.received,
            "lost": round(self.lost, 4),
            "sent_hz": round(self.rate, 2),
            "longest_gap_s": round(self.longest_gap, 3),
            "fault": self.fault,
        }


def image_settings(
    middleware: str, environment: Mapping[str, str], socket_limit: int
) -> list[ImageLoss]:
    """The settings worth a trial, without figures.

    The first is that of the node: best effort, and the environment as it is. The second is
    reliable. What follows is best effort with a setting of the middleware; what the user has set is
    not tried again.

    Args:
        middleware: As `rmw_get_implementation_identifier` names it.
        environment: Of the caller.
        socket_limit: Bytes that a socket may hold on this machine.
    """
    settings = [ImageLoss("best effort", {}, False), ImageLoss("reliable", {}, True)]

    def add(name: str, remedy: dict[str, str]) -> None:
        settings.append(ImageLoss(f"best effort, {name}", remedy, False))

    if middleware.startswith("rmw_fastrtps"):
        free = not {"FASTDDS_BUILTIN_TRANSPORTS", *PROFILE_VARIABLES} & set(environment)
        profiles = profiles_file()
        if free and profiles is not None:
            add("shared memory of 64 MB", dict.fromkeys(PROFILE_VARIABLES, str(profiles)))
        # with less, Fast DDS makes no transport at all, and nothing arrives
        if free and socket_limit >= SOCKET_BYTES["rmw_fastrtps"]:
            add("LARGE_DATA", {"FASTDDS_BUILTIN_TRANSPORTS": LARGE_DATA})
    elif middleware == "rmw_cyclonedds_cpp":
        # with less, Cyclone DDS does not start
        if "CYCLONEDDS_URI" not in environment and socket_limit >= SOCKET_BYTES[middleware]:
            add("receive buffer of 10 MB", {"CYCLONEDDS_URI": _CYCLONE_XML})
    elif middleware == "rmw_zenoh_cpp":
        before = environment.get("ZENOH_CONFIG_OVERRIDE", "")
        if "shared_memory" not in before:
            both = [before, "transport/shared_memory/enabled=true"]
            add("shared memory", {"ZENOH_CONFIG_OVERRIDE": ";".join(filter(None, both))})
    return settings


def profiles_file() -> Path | None:
    """The profiles of Fast DDS in the checkout or where the package is installed."""
    prefixes = [*os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep), sys.prefix]
    folders = [Path(__file__).resolve().parents[2] / "config"]
    folders += [Path(p) / "share" / "uns_pose_ros" / "config" for p in prefixes if p]
    return next(
        (folder / _PROFILES for folder in folders if (folder / _PROFILES).is_file()), None
    )


def socket_limit_bytes() -> int:
    """Bytes that a socket may hold on this machine; 0 where nobody knows."""
    try:
        return min(int(path.read_text()) for path in _SOCKET_LIMITS)
    except (OSError, ValueError):
        return 0


def measure_image_loss(
    stream: TrialImages, report: Callable[[str], None] = lambda _: None
) -> tuple[str, list[ImageLoss]]:
    """Send images from one process to another, once for each setting worth a trial.

    Where best effort loses few images, or a setting helps, no further setting is tried.

    Args:
        stream: The images.
        report: Called with the name of each setting before it is tried.

    Returns:
        Name of the middleware, and the losses, the setting of the node first.

    Raises:
        InvalidInput: ROS is missing here.
    """
    try:
        from rclpy.utilities import get_rmw_implementation_identifier
    except ImportError:
        raise InvalidInput(
            "doctor --images: rclpy is missing; source a ROS 2 installation, or call make setup"
        ) from None
    middleware = str(get_rmw_implementation_identifier())
    losses: list[ImageLoss] = []
    for setting in image_settings(middleware, os.environ, socket_limit_bytes()):
        if (
            any(not loss.reliable and loss.lost <= FEW for loss in losses)
            and len(losses) > 1
        ):
            break
        report(setting.setting)
        losses.append(_try_setting(stream, setting))
    return middleware, losses


def image_advice(
    middleware: str, losses: Sequence[ImageLoss], socket_limit: int
) -> list[str]:
    """What to set for images of this size, as lines; the best first.

    Args:
        middleware: As `measure_image_loss` returns it.
        losses: As `measure_image_loss` returns them.
        socket_limit: Bytes that a socket may hold on this machine.
    """
    first, reliable, *others = losses
    if first.lost <= FEW:
        return [
            "no setting is needed: best effort, as the node asks for, loses no more than 1 %"
        ]
    lines = [
        f"set for the camera driver and every node: {describe_setting(loss)}"
        for loss in others
        if loss.lost <= FEW
    ]
    if reliable.lost <= FEW:
        lines.append(
            "or, if the driver sends reliably, for the node alone: "
            + describe_setting(reliable)
        )
    needed = next((n for name, n in SOCKET_BYTES.items() if middleware.startswith(name)), 0)
    if not lines and socket_limit < needed:
        lines.append(
            f"sockets may hold {socket_limit} bytes here: sudo sysctl -w "
            f"net.core.rmem_max={needed} net.core.wmem_max={needed}, then measure again"
        )
    best = min(losses, key=lambda loss: loss.lost)
    if not lines and best.lost < first.lost / 2:
        lines.append(
            f"no setting that was tried loses none; the best is: {describe_setting(best)}"
        )
    if not lines:
        lines.append("no setting that was tried helps")
    if all(loss.lost > FEW for loss in losses):
        lines.append("smaller or fewer images lose less, and so does transport:=compressed")
    return lines


def describe_setting(loss: ImageLoss) -> str:
    """How to make a setting, as a part of a line."""
    if loss.reliable:
        return "-p qos_overrides./TOPIC.subscription.reliability:=reliable"
    if not loss.environment:
        return "what is set now"
    pairs = (f"{name}='{value}'" for name, value in loss.environment.items())
    return f"export {' '.join(pairs)}"


def _try_setting(stream: TrialImages, setting: ImageLoss) -> ImageLoss:
    """Run both processes once."""
    topic = f"/uns_pose_doctor_{os.getpid()}/image"
    common = [topic, "reliable" if setting.reliable else "best_effort"]
    sizes = [str(stream.width), str(stream.height), str(stream.rate), str(stream.count)]
    with ExitStack() as stack:
        subscriber = stack.enter_context(
            TrialProcess("subscribe", common, setting.environment)
        )
        publisher = stack.enter_context(
            TrialProcess("publish", [*common, *sizes], setting.environment)
        )
        try:
            subscriber.expect("ready", _PATIENCE)
            publisher.say("go")
            # a reliable publisher that is slowed down takes longer than the film
            sent = publisher.expect("sent", 10 * stream.seconds + _PATIENCE)
            subscriber.say("stop")
            arrived = subscriber.expect("received", _PATIENCE)
        except TimeoutError as error:
            return replace(setting, fault=str(error))
    return replace(
        setting,
        sent=sent["count"],
        received=arrived["count"],
        rate=sent["rate"],
        longest_gap=arrived["longest_gap"],
    )
