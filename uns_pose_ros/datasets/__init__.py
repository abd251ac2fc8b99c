"""Public data sets: readers of their files, each to one common record."""
