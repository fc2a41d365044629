"""What a published image claims, one claim a function: held against what can be known of it."""
