"""The claims of a published image, one a function."""
