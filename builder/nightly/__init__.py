"""A fork's newest commit to a published image, resumable."""
