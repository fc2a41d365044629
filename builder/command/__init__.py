"""The commands, one family a module: parse, call one verb, show what it found."""
