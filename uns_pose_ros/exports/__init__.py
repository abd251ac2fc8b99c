"""Poses, masks and boxes of videos and bags as label sets of other programs."""
