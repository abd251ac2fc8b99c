"""What structure from motion does with pycolmap: cameras, pairs of images, and one attempt."""
