"""pins.toml → values, with every impossible entry named by its place."""

import dataclasses
import json
import tomllib
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from builder.common.errors import PinsError, UsageError
from builder.common.suggest import suggestion
from builder.model.pins import Base, Fork, Pins, Variant
from builder.pins.validate import Problem, pair_problems, problems

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

FILE_NAME = "pins.toml"


def find(start: Path) -> Path | None:
    """The pins.toml of the checkout around `start`, looked for upwards; None when there is none."""
    return next((p / FILE_NAME for p in [start, *start.parents] if (p / FILE_NAME).is_file()), None)


def load(path: Path) -> Pins:
    """Read and validate one pins.toml.

    Raises PinsError that lists every problem with its place.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PinsError(f"{path}: cannot be read", why=str(error)) from error
    return parse(text, str(path))


def parse(text: str, name: str = FILE_NAME) -> Pins:
    """The values of a pins.toml's text; `name` is how errors call the file.

    Raises PinsError that lists every problem with its place.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise PinsError(f"{name}: is no TOML", why=str(error)) from error
    adapter = TypeAdapter(Pins)
    try:
        # As JSON: only there does strict, which takes no "14" for 14, let a list be a tuple.
        page = json.dumps(_spelt_out(document), default=lambda date: date.isoformat())
        pins = adapter.validate_json(page, strict=True, extra="forbid")
    except ValidationError as error:
        raise _failure(name, [_explain(e) for e in error.errors()]) from error
    found = list(problems(pins))
    if found:
        raise _failure(name, found)
    return pins


def variant(pins: Pins, name: str | None) -> tuple[str, Variant]:
    """The variant of this name, or the default one for None.

    Raises UsageError with the nearest name.
    """
    name = name or pins.policy.default_variant
    if name not in pins.variants:
        raise UsageError(
            f"unknown variant {name!r}",
            hint=suggestion(name, pins.variants),
        )
    return name, pins.variants[name]


def variant_of(pins: Pins, part: Literal["fork", "base"], of: str, wanted: str | None) -> str:
    """The variant of this name that a fork or a base has; for None the default one if it is that.

    Else its first. Raises UsageError with the nearest name.
    """
    own = [name for name, variant in pins.variants.items() if getattr(variant, part) == of]
    name = wanted or pins.policy.default_variant
    if wanted is None and name not in own and own:
        name = own[0]
    if name not in own:
        raise UsageError(f"{part} {of} has no variant {name!r}", hint=suggestion(name, own))
    return name


def with_base(pins: Pins, chosen: Variant, base: str | None) -> Base:
    """The variant's base, or the one chosen in its place, if it can compile the variant.

    Raises UsageError for an unknown base or an impossible pair.
    """
    name = base or chosen.base
    if name not in pins.bases:
        raise UsageError(
            f"unknown base {name!r}",
            hint=suggestion(name, pins.bases),
        )
    for place, problem in pair_problems(chosen, pins.bases[name]):
        raise UsageError(f"base {name}: {place}: {problem}")
    return pins.bases[name]


def broken(fork: Fork, commit: str) -> str:
    """What is known against a commit (7 to 40 hex digits), or "" when nothing is."""
    return next((known for full, known in fork.broken.items() if full.startswith(commit)), "")


def _spelt_out(document: dict[str, Any]) -> dict[str, Any]:
    """The document with a profile's KV types as a table: `kv = "q8_0"` and `"K:V"` say the same."""
    profiles = document.get("profiles")
    for profile in profiles.values() if isinstance(profiles, dict) else ():
        if isinstance(profile, dict) and isinstance(profile.get("kv"), str):
            k, colon, v = profile["kv"].partition(":")
            profile["kv"] = {"k": k, "v": v if colon else k}
    return document


def _failure(name: str, found: list[Problem]) -> PinsError:
    lines = [f"{name}: {place}: {what}" for place, what in found]
    return PinsError(lines[0], why="\n".join(lines[1:]))


def _explain(error: "ErrorDetails") -> Problem:
    parts = [str(part) for part in error["loc"]]
    if parts[-1] in {"bool", "str"}:
        parts.pop()  # pydantic's name for the member of a union, not a key
    place = ".".join(parts)
    if error["type"] in {"unexpected_keyword_argument", "extra_forbidden"}:
        known = _known_keys(Pins, parts[:-1])
        return place, f"unknown key; {suggestion(parts[-1], known)}"
    if error["type"] in {"missing", "missing_argument"}:
        return place, "is missing"
    return place, f"{error['msg']}, not {error['input']!r}"


def _known_keys(kind: object, place: list[str]) -> list[str]:
    """The keys that the table at this place may have."""
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        if not place:
            return [field.name for field in dataclasses.fields(kind)]
        return _known_keys(typing.get_type_hints(kind)[place[0]], place[1:])
    arguments = typing.get_args(kind)
    if typing.get_origin(kind) in {dict, list}:
        return _known_keys(arguments[-1], place[1:])
    return next((_known_keys(a, place) for a in arguments if dataclasses.is_dataclass(a)), [])
