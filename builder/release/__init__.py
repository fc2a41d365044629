"""Publish, promote, roll back and prune images, and the record of it."""
