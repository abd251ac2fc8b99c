"""The images of a node, complete with the other messages of their stamp, one after another."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import CompressedImage, Image

from uns_pose_ros.nodes.diagnostics import NodeDiagnostics
from uns_pose_ros.nodes.estimator.image_subscriber import ImageSubscriber
from uns_pose_ros.nodes.estimator.stamp_synchronizer import (
    StampSynchronizer,
    SynchronizedImage,
)
from uns_pose_ros.nodes.worker_thread import Worker

# topic and type of the depth messages, by transport
DEPTH_TOPICS: dict[str, tuple[str, type]] = {
    "raw": ("depth", Image),
    "compressed": ("depth/compressedDepth", CompressedImage),
}


class ImageStream:
    """Subscribes to images and hands each complete one to a worker thread."""

    def __init__(
        self,
        node: LifecycleNode,
        diagnostics: NodeDiagnostics,
        transport: str,
        companions: Mapping[str, type],
        work: Callable[[SynchronizedImage], None],
        slots: int = 1,
        waiting_images: int = 8,
        queue_depth: int = 1,
        on_complete: Callable[[SynchronizedImage], None] = lambda item: None,
        fresh: bool = False,
    ) -> None:
        """Start to listen.

        Args:
            node: The node that subscribes.
            diagnostics: Counts the images that are received and dropped.
            transport: raw or compressed.
            companions: Types of the messages that an image needs, by topic.
            work: The function processes one image in the worker thread and must not raise.
            slots: Complete images that may wait for the worker thread.
            waiting_images: Images that may wait for their companions.
            queue_depth: Images that may wait in the middleware.
            on_complete: The function is called with each complete image as soon as it has come.
            fresh: Whether to wait for the next image where it is worth it; see `Worker`.
        """
        self._on_complete = on_complete
        self._worker: Worker[SynchronizedImage] = Worker(
            work, lambda: diagnostics.dropped("replaced by a newer image"), slots, fresh
        )
        self._synchronizer = StampSynchronizer(
            node, companions, diagnostics, self._put, waiting_images
        )
        self._images = ImageSubscriber(
            node, transport, diagnostics, self._synchronizer.add_image, queue_depth
        )

    def _put(self, item: SynchronizedImage) -> None:
        self._on_complete(item)
        self._worker.put(item)

    def interpose(self, job: Callable[[], None], most: int) -> bool:
        """Call a function in the worker thread before the images that wait; see `Worker`."""
        return self._worker.interpose(job, most)

    @property
    def image_topic(self) -> str:
        """Full name of the topic of the images."""
        return self._images.image_topic

    @property
    def camera_topic(self) -> str:
        """Full name of the topic of the camera_info."""
        return self._images.camera_topic

    def check(self) -> None:
        """Report what does not arrive to the diagnostics; called once a second."""
        self._images.check()
        self._synchronizer.check()

    def close(self) -> None:
        """Stop to listen; images that have come are still processed."""
        self._images.close()
        self._synchronizer.close()

    def stop(self, timeout: float) -> bool:
        """Finish the image in the worker thread; False if it takes longer than `timeout` s."""
        return self._worker.stop(timeout)
