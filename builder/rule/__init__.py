"""The rules of an audit: each a pure function over what was read of an image."""
