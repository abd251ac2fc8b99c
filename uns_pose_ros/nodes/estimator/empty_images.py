"""Images in a row without an estimate, and how near their best pose came to the threshold."""

from __future__ import annotations

PATIENCE = 30  # images in a row without an estimate, from which on the node says so
# share of the threshold from which on a score is near it
_NEAR = 0.75
_OBJECT = 0.22  # score that is no rare one for an object


class EmptyImages:
    """Counts images without an estimate since the last estimate or the last change of threshold."""

    def __init__(self) -> None:
        """Begin with no image."""
        self._count = 0
        self._best: float | None = None
        self._threshold = 0.0

    def add(self, answered: bool, best: float | None, threshold: float) -> None:
        """Count an image.

        Args:
            answered: Whether the image has an estimate.
            best: Its best score below the threshold; None: it has no such pose.
            threshold: The threshold of scores.
        """
        if answered or threshold != self._threshold:
            self._count, self._best = 0, None
        self._threshold = threshold
        if answered:
            return
        self._count += 1
        if best is not None:
            self._best = max(best, self._best or 0.0)

    def describe(self) -> str:
        """Describe the images for diagnostics; empty before PATIENCE images in a row."""
        if self._count < PATIENCE:
            return ""
        if self._best is None:
            return "nothing found: no region looks like an object"
        return (
            f"nothing found: best score {self._best:.2f}, threshold {self._threshold:.2f}"
        )

    def warning(self) -> str:
        """Return the description where the threshold may hide an object, else an empty text.

        It may where a score was near it, or as high as scores of objects often are. An image
        without an object is no reason for a warning.
        """
        near = min(_NEAR * self._threshold, _OBJECT)
        return self.describe() if self._best is not None and self._best >= near else ""
