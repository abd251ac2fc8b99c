"""How large the instance of an image is, along each canonical axis."""
