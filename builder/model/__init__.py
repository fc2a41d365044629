"""Frozen data types. Imports nothing of ours."""
