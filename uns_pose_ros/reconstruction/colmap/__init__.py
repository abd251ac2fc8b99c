"""What structure from motion gives pycolmap: cameras, and pairs of images to match."""
