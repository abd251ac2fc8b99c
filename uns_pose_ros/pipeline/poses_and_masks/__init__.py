"""Camera poses and masks of a video that has none."""
