"""Names of what is built."""

import re

REPOSITORY = "turboquant"

_VERSION = re.compile(r"b([0-9]{1,9})")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


def local(variant: str) -> str:
    """The tag that follows the newest successful local build of a variant."""
    return f"{REPOSITORY}:{variant}"


def release(variant: str, build_number: int | None, commit: str, recipe_sha256: str) -> str:
    """`<variant>-b<number>-<sha9>-r<recipe>`; an unknown build number is 0."""
    return f"{variant}-b{build_number or 0}-{commit[:9]}-r{recipe_sha256[:8]}"


def floating(variant: str, default_variant: str) -> tuple[str, ...]:
    """The tags that follow the newest promoted release of a variant, in the order they are moved.

    `<variant>-nightly`, `<variant>`, and `latest` for the default variant.
    """
    return (f"{variant}-nightly", variant, *(["latest"] if variant == default_variant else []))


def is_tag(name: str) -> bool:
    """Whether a registry takes it for a tag; so it is no path either.

    https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md#pulling-manifests
    """
    return bool(_TAG.fullmatch(name))


def build_number(version: str) -> int | None:
    """The build number in an image's version; None: it has none."""
    found = _VERSION.fullmatch(version)
    return int(found[1]) if found else None
