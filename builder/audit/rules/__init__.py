"""The rules of an audit, one a function."""
