"""The only part of the package that knows ROS.

Messages in and out, parameters, the estimator node.
"""
