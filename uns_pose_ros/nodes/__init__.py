"""The only part of the package that knows ROS: messages in and out, parameters, the estimator node."""
