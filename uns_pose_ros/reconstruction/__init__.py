"""From a video folder to a mesh with features."""
