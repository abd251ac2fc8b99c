"""From a film, a bag or a robot's camera to a video folder."""
