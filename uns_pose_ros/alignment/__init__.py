"""From feature meshes to one canonical frame, and the category's mean shape in it."""
