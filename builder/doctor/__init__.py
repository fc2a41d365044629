"""Check this machine, and fix it."""
