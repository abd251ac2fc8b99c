"""Records of the JSON files: one module for each family, decoded and checked by msgspec."""
