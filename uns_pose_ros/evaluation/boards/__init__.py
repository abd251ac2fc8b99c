"""A printed board of markers below the object, which gives its true pose in every image."""
