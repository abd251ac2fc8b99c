"""Requests for the poses in one image, also in an image that is past.

A request is a Detection2DArray on ~/request: the stamp of an image, or 0 for the newest, and
regions with classes. The answer is on ~/detections, with the stamp of the image.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Collection

from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile, ReliabilityPolicy
from std_msgs.msg import Header
from vision_msgs.msg import Detection2DArray

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.nodes.diagnostics import NodeDiagnostics
from uns_pose_ros.nodes.estimator.stamp_synchronizer import SynchronizedImage
from uns_pose_ros.nodes.image_stamps import stamp_ns
from uns_pose_ros.nodes.managed_node import one_line

MEMORY = 2.0  # s for which images are kept
MOST_WAITING = 8  # requests that wait for the worker thread
_MOST_IMAGES = 200
_REQUESTS = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)


class PoseRequests:
    """Keeps the images of the last seconds and hands requests to the worker thread.

    Images are kept only while somebody may ask: while the topic has a publisher. The newest one is
    always kept. All methods but `_work` are called from the thread that spins.
    """

    def __init__(
        self,
        node: LifecycleNode,
        diagnostics: NodeDiagnostics,
        interpose: Callable[[Callable[[], None], int], bool],
        answer: Callable[[SynchronizedImage, Detection2DArray], None],
        refuse: Callable[[Header], None],
    ) -> None:
        """Subscribe.

        Args:
            node: The node that subscribes.
            diagnostics: Counts the requests that are refused, by reason.
            interpose: See `Worker.interpose`.
            answer: The function estimates and publishes, in the worker thread.
            refuse: The function publishes an empty answer with a header.
        """
        self._node = node
        self._diagnostics = diagnostics
        self._interpose = interpose
        self._answer = answer
        self._refuse = refuse
        self._images: deque[tuple[float, SynchronizedImage]] = deque(maxlen=_MOST_IMAGES)
        self._counts: Counter[str] = Counter()
        self._subscription = node.create_subscription(
            Detection2DArray, "~/request", self._on_request, _REQUESTS
        )

    def add(self, item: SynchronizedImage) -> None:
        """Keep an image."""
        now = time.monotonic()
        if not self._node.count_publishers(self._subscription.topic_name):
            self._images.clear()
        while self._images and now - self._images[0][0] > MEMORY:
            self._images.popleft()
        self._images.append((now, item))

    def forget(self) -> None:
        """Forget all images."""
        self._images.clear()

    def close(self) -> None:
        """Unsubscribe."""
        self._node.destroy_subscription(self._subscription)

    def _on_request(self, request: Detection2DArray) -> None:
        stamp = stamp_ns(request)
        item = next(
            (kept for _, kept in reversed(self._images) if stamp in (0, stamp_ns(kept[0]))),
            None,
        )
        if item is None:
            reason = f"no image of the last {MEMORY:.0f} s has its stamp"
            self._reject(request, reason if self._images else "no image has come")
            return
        waits = self._interpose(lambda: self._work(item, request), MOST_WAITING)
        if not waits:
            self._reject(request, f"{MOST_WAITING} requests wait, or the node is off")

    def _work(self, item: SynchronizedImage, request: Detection2DArray) -> None:
        """Answer a request in the worker thread; never raises."""
        try:
            self._answer(item, request)
        # any error must be an answer, not the end of the thread
        except Exception as error:
            if not self._node.context.ok():
                return
            known = isinstance(error, InvalidInput)
            self._reject(
                request, one_line(error) if known else f"failed: {one_line(error)}"
            )
        else:
            self._counts["requests answered"] += 1
            self._diagnostics.note(self._counts)

    def _reject(self, request: Detection2DArray, reason: str) -> None:
        self._counts["requests refused"] += 1
        self._diagnostics.note(self._counts)
        seconds = stamp_ns(request) / 1e9
        text = f"request of stamp {seconds:.3f} s refused: {reason}"
        self._diagnostics.failed(text)
        self._node.get_logger().warning(text, throttle_duration_sec=5.0)
        self._refuse(Header(stamp=request.header.stamp))


def group_regions(
    request: Detection2DArray, categories: Collection[str], left_out: Counter[str]
) -> dict[str, Detection2DArray | None]:
    """Return the regions of a request by category.

    Args:
        request: A detection without a class is for all categories, one without a size for the whole
            image. No detection at all: the whole image, for all categories.
        categories: The categories that the node knows.
        left_out: Receives the number of regions of other classes.

    Returns:
        Regions by category, "" for all categories; None for the whole image.
    """
    if not request.detections:
        return {"": None}
    groups: dict[str, Detection2DArray | None] = {}
    for detection in request.detections:
        ranked = sorted(detection.results, key=lambda result: -result.hypothesis.score)
        given = [result.hypothesis.class_id for result in ranked]
        given = [name for name in given if name]
        known = [name for name in given if name in categories]
        if given and not known:
            left_out[f"another class than {', '.join(sorted(categories))}"] += 1
            continue
        key = known[0] if known else ""
        if detection.bbox.size_x <= 0 or detection.bbox.size_y <= 0:
            groups[key] = None
        elif key not in groups:
            groups[key] = Detection2DArray(detections=[detection])
        elif (group := groups[key]) is not None:
            group.detections.append(detection)
    return groups
