"""The camera player: publishes a film, a folder of images or a bag as a camera does."""
