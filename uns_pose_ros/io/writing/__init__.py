"""Every write: whole or not at all, by one process at a time, with one line where it fails."""
