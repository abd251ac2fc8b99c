"""What ROS records and sends: bags, messages and transforms, read without a ROS installation."""
