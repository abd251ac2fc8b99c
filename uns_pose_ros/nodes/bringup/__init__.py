"""Helpers of the launch files: arguments, parameters, processes, and what a process waits for."""
