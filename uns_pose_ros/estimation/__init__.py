"""From one image to object poses, and from a stream to tracks."""
