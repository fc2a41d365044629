"""The probes of a smoke test, one a function."""
