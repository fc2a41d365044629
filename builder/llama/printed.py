"""What a llama-server's `--help` and `--version` say."""

import re

_VALUES = re.compile(r"--cache-type-([kv]) .*?allowed values:(.*?)\n\s*\(", re.DOTALL)
# "version: 9326 (1c4788192)"; newer: "version: 0.5.0-dev (build 9326, commit 1c4788192)".
_VERSION = re.compile(
    r"^version: (?:(\d+) \(|.*\(build (\d+), commit )([0-9a-f]{7,40})\)", re.MULTILINE
)
_COMMIT = re.compile(r"^version: .*\b([0-9a-f]{7,40})\)", re.MULTILINE)


def offered(help_text: str) -> dict[str, list[str]]:
    """The KV types that a `--help` offers, for "k" and "v"."""
    found = _VALUES.findall(help_text)
    return {half: re.split(r"[\s,]+", values.strip()) for half, values in found}


def commit(version_text: str) -> str | None:
    """The commit that a `--version` names, perhaps shortened; None: none."""
    found = _COMMIT.search(version_text)
    return found[1] if found else None


def build_number(version_text: str) -> int | None:
    """The build number that a `--version` names; None: none, or 0, which is what it is unknown."""
    found = _VERSION.search(version_text)
    return int(found[1] or found[2]) or None if found else None
