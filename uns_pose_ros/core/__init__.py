"""Types, errors, cameras and geometry that everything is made of; no files, no ROS."""
