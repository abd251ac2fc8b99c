"""The steps that bring the videos of a category to one canonical frame."""
