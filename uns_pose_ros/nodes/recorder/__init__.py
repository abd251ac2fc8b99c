"""The recorder node: images in, a video folder out."""
