"""Load, validate and edit pins.toml."""
