"""Errors, progress, files, locks. Imports nothing of ours."""
