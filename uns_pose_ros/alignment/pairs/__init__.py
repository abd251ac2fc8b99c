"""The steps in the alignment of two feature meshes."""
