"""One recording from start to stop.

Pictures are judged in the caller's thread, those kept are written in another.
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
from uns_pose_ros.io.depth_images import Depth, encoded
from uns_pose_ros.io.encoded_image import Photo
from uns_pose_ros.nodes.diagnostics import NodeDiagnostics
from uns_pose_ros.nodes.recorder.recorder_parameters import RecorderParameters
from uns_pose_ros.nodes.worker_thread import Worker

JOIN = 30.0  # s that the end of a recording waits for the pictures not yet written
SLOW, ENDED = (
    "the disk is too slow",
    "recording has ended",
)  # reasons to leave a picture out


@dataclass(frozen=True, eq=False)
class _PendingImage:
    photo: Photo
    shot: FrameRecord
    age: Callable[[], float]  # s since its stamp
    depth: Depth | None


class RecordingSession:
    """Chooses pictures and writes them.

    A disk that takes no more ends it, with everything written before kept.
    """

    def __init__(
        self,
        recording: Recording,
        settings: RecorderParameters,
        config: KeyframeConfig,
        diagnostics: NodeDiagnostics,
        on_failure: Callable[[str], None],
    ) -> None:
        """on_failure.

        Called once with one line, from the writing thread, when nothing can be written any more.
        """
        self.recording, self.error = recording, ""
        self._over = False
        self._settings, self._diagnostics, self._on_failure = settings, diagnostics, on_failure
        poses = [
            shot.cam_from_obj.numpy()
            for shot in recording.frames.values()
            if shot.cam_from_obj is not None
        ]
        self._chooser = KeyframeChooser(config, poses)
        self._resumed = len(recording)
        self._writer: Worker[_PendingImage | None] = Worker(
            self._write, lambda: None, settings.queue
        )

    @property
    def name(self) -> str:
        return self.recording.folder.name

    @property
    def kept(self) -> int:
        """Pictures in the folder."""
        return len(self.recording)

    def take(
        self,
        photo: Photo,
        shot: FrameRecord,
        age: Callable[[], float],
        depth: Callable[[], Depth] | None = None,
    ) -> str | None:
        """Keep a picture if it is worth it; None, or why not.

        `age`: s since its stamp, asked when it has been written.

        depth: gives that of the picture, asked where it is worth it; its InvalidInput goes on to
        the caller.
        """
        look = measure_frame(photo)
        pose = None if shot.cam_from_obj is None else shot.cam_from_obj.numpy()
        reason = self._chooser.rejection_reason(look) or (
            None if self._chooser.is_new_view(look, pose) else SEEN
        )
        if reason is not None:
            return reason
        measured = None if depth is None else depth()
        if not self._writer.offer(_PendingImage(photo, shot, age, measured)):
            return ENDED if self.error or self._over else SLOW
        self._chooser.keep(look, pose)
        return None

    def settle(self) -> None:
        """To be called now and then.

        Video.json and sparse/ follow the pictures also when no more come.
        """
        self._writer.offer(None)

    def coverage(self, cam_from_obj: np.ndarray | None = None) -> Coverage:
        """What has been seen of the object, with the camera's present pose where it is known."""
        return Coverage.of(self._chooser.orbit, self.kept, cam_from_obj)

    def finish(self) -> str:
        """Write what is kept and not yet written, finish the folder and say what came of it.

        Raises InvalidInput on failure.
        """
        self._over = True
        if not self._writer.stop(JOIN, finish=True):
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
        return f"{self.kept} pictures kept{before}"

    def _write(self, item: _PendingImage | None) -> None:
        """In the writing thread.

        A picture, or None for what describes all of them; never raises.
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
            data, ending = item.photo.encoded(
                f".{self._settings.format}", self._settings.jpeg_quality
            )
            self.recording.add(
                data, ending, item.shot, None if item.depth is None else encoded(item.depth)
            )
        except (
            Exception
        ) as error:  # a full disk as a rule; whatever it is, the folder is to be finished
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
            told = (
                f"video.json and sparse/ could not be finished ({_reason(error)}), the next "
                "~/start does it"
            )
            self.error = (
                f"{self.error}; {told}"
                if self.error
                else f"recording stopped, {self._summary()}, but {told}"
            )


def _reason(error: Exception) -> str:
    return (
        error.strerror or str(error)
        if isinstance(error, OSError)
        else " ".join(f"{type(error).__name__}: {error}".split())
    )
