"""One recording from start to stop.

The caller's thread selects images, another thread writes them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from uns_pose_ros.capture.guidance import Coverage
from uns_pose_ros.capture.keyframes import (
    SEEN,
    KeyframeChooser,
    KeyframeConfig,
    measure_frame,
)
from uns_pose_ros.capture.recording import FrameRecord, Recording
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.io.depth_images import Depth, encode_depth
from uns_pose_ros.io.encoded_image import EncodedImage
from uns_pose_ros.nodes.diagnostics import NodeDiagnostics
from uns_pose_ros.nodes.recorder.recorder_parameters import RecorderParameters
from uns_pose_ros.nodes.worker_thread import Worker

_STOP_TIMEOUT = 30.0  # s that `finish` waits for the images that are not written yet
# reasons to drop an image
SLOW = "the disk is too slow"
ENDED = "recording has ended"


@dataclass(frozen=True, eq=False)
class _PendingImage:
    """An image that waits to be written."""

    image: EncodedImage
    record: FrameRecord
    age: Callable[[], float]  # s since its stamp
    depth: Depth | None


class RecordingSession:
    """Selects images and writes them.

    A full disk ends the session; everything written before stays.
    """

    def __init__(
        self,
        recording: Recording,
        settings: RecorderParameters,
        config: KeyframeConfig,
        diagnostics: NodeDiagnostics,
        on_failure: Callable[[str], None],
    ) -> None:
        """Start the thread that writes.

        Args:
            recording: The video folder.
            settings: Settings of the node.
            config: Rules for the selection of images.
            diagnostics: Counts the images that are kept and dropped.
            on_failure: The function is called once from the writing thread, with a message, when
                nothing can be written any more.
        """
        self.recording = recording
        self.error = ""
        self._over = False
        self._settings = settings
        self._diagnostics = diagnostics
        self._on_failure = on_failure
        poses = [
            record.cam_from_obj.numpy()
            for record in recording.frames.values()
            if record.cam_from_obj is not None
        ]
        self._chooser = KeyframeChooser(config, poses)
        self._resumed = len(recording)
        self._writer: Worker[_PendingImage | None] = Worker(
            self._write, lambda: None, settings.queue
        )

    @property
    def name(self) -> str:
        """Name of the video folder."""
        return self.recording.folder.name

    @property
    def kept(self) -> int:
        """Number of images in the folder."""
        return len(self.recording)

    def take(
        self,
        image: EncodedImage,
        record: FrameRecord,
        age: Callable[[], float],
        read_depth: Callable[[], Depth] | None = None,
    ) -> str | None:
        """Keep an image if it is useful.

        Args:
            image: The image.
            record: Its stamp, camera and pose.
            age: The function returns the time since its stamp, s; it is called after writing.
            read_depth: The function returns its depth; it is called only for a useful image.

        Returns:
            None if the image is kept, else the reason why not.

        Raises:
            InvalidInput: `read_depth` raised it.
        """
        stats = measure_frame(image)
        pose = None if record.cam_from_obj is None else record.cam_from_obj.numpy()
        reason = self._chooser.rejection_reason(stats) or (
            None if self._chooser.is_new_view(stats, pose) else SEEN
        )
        if reason is not None:
            return reason
        depth = None if read_depth is None else read_depth()
        if not self._writer.offer(_PendingImage(image, record, age, depth)):
            return ENDED if self.error or self._over else SLOW
        self._chooser.keep(stats, pose)
        return None

    def update_folder(self) -> None:
        """Let video.json and sparse/ describe all images, also if no more come.

        It is called every second.
        """
        self._writer.offer(None)

    def coverage(self, cam_from_obj: np.ndarray | None = None) -> Coverage:
        """Return which views of the object are recorded, with the camera's present pose."""
        return Coverage.of(self._chooser.orbit, self.kept, cam_from_obj)

    def finish(self) -> str:
        """Write the waiting images, finish the folder and return a summary.

        Raises InvalidInput on failure.
        """
        self._over = True
        if not self._writer.stop(_STOP_TIMEOUT, finish=True):
            raise InvalidInput(
                f"{self.recording.folder}: the disk does not answer; {self._summary()}"
            )
        if not self.error:
            self._close()
        if self.error:
            raise InvalidInput(self.error)
        return f"{self.recording.folder}: {self._summary()}"

    def _summary(self) -> str:
        before = f", {self._resumed} of them before" if self._resumed else ""
        return f"{self.kept} images kept{before}"

    def _write(self, item: _PendingImage | None) -> None:
        """Write an image, or the files that describe all images; never raises.

        The writing thread calls it.

        Args:
            item: The image; None: the files that describe all images.
        """
        if self.error:
            if item is not None:
                self._diagnostics.dropped(ENDED)
            return
        began = time.monotonic()
        try:
            if item is None:
                self.recording.settle()
                return
            data, ending = item.image.encoded(
                f".{self._settings.format}", self._settings.jpeg_quality
            )
            self.recording.add(
                data,
                ending,
                item.record,
                None if item.depth is None else encode_depth(item.depth),
            )
        # usually a full disk; the folder must be finished after any error
        except Exception as error:
            if item is not None:
                self._diagnostics.dropped("could not be written")
            self.error = (
                f"recording stopped: {_reason(error)}; {self._summary()} in "
                f"{self.recording.folder}"
            )
            self._close()
            self._on_failure(self.error)
        else:
            self._diagnostics.published(item.age(), time.monotonic() - began)

    def _close(self) -> None:
        try:
            self.recording.close()
        except OSError as error:
            text = (
                f"video.json and sparse/ could not be finished ({_reason(error)}), the next "
                "~/start does it"
            )
            self.error = (
                f"{self.error}; {text}"
                if self.error
                else f"recording stopped, {self._summary()}, but {text}"
            )


def _reason(error: Exception) -> str:
    return (
        error.strerror or str(error)
        if isinstance(error, OSError)
        else " ".join(f"{type(error).__name__}: {error}".split())
    )
