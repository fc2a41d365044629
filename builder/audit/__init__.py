"""Look into an image without serving it."""
