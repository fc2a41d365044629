"""Checks that a published image is what it says it is."""
