"""Profiles as running containers."""
