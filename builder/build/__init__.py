"""From a pin to a Dockerfile, an image and its receipt."""
