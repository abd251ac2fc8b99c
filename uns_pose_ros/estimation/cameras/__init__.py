"""From the estimates of several cameras to objects in one frame that does not move."""
