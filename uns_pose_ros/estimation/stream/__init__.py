"""Objects that are followed over a stream of images, cut out where they are expected."""
