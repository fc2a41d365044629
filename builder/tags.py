"""Names of what is built."""

REPOSITORY = "turboquant"


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
