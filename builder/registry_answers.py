"""What a registry answers, checked where it comes in: its JSON by a schema, its names by a grammar.

https://github.com/opencontainers/image-spec/blob/main/manifest.md (and image-index.md, config.md,
descriptor.md); names: https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md
What a schema here does not name is left aside. Each `parse` raises RemoteUnavailableError.
"""

import functools
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from builder.errors import RemoteUnavailableError

T = TypeVar("T")

Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
Tag = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$")]
Bytes = Annotated[int, Field(ge=0, lt=2**53)]
Texts = dict[str, str]

MOST_LISTED = 1000
"""Of layers, platforms or attached documents: some ten times what images have."""
_SHOWN = 200


@dataclass(frozen=True, slots=True)
class Platform:
    """What a manifest of an index is for."""

    os: str = ""
    architecture: str = ""


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A blob or manifest that another names; `size` in bytes, None where it is not told."""

    digest: Digest
    size: Bytes | None = None
    platform: Platform | None = None
    annotations: Texts | None = None


Descriptors = Annotated[list[Descriptor], Field(max_length=MOST_LISTED)]


@dataclass(frozen=True, slots=True)
class Subject:
    """What an artifact is about; another algorithm's digest is no fault of a list's."""

    digest: str


@dataclass(frozen=True, slots=True)
class Config:
    """A manifest's configuration: its digest, and the kind of thing that it configures."""

    digest: Digest
    mediaType: str = ""  # noqa: N815 -- its name there
    size: Bytes | None = None


@dataclass(frozen=True, slots=True)
class ManifestContent:
    """What a manifest says."""

    config: Config
    layers: Descriptors | None
    mediaType: str = ""  # noqa: N815 -- their names there
    artifactType: str = ""  # noqa: N815
    subject: Subject | None = None
    annotations: Texts | None = None


@dataclass(frozen=True, slots=True)
class IndexContent:
    """What an index says."""

    manifests: Descriptors | None
    mediaType: str = ""  # noqa: N815 -- their names there
    artifactType: str = ""  # noqa: N815
    subject: Subject | None = None
    annotations: Texts | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """What an image's configuration says of its containers."""

    Labels: Texts | None = None


@dataclass(frozen=True, slots=True)
class RootFs:
    """The digests of an image's layers, unpacked."""

    diff_ids: list[Digest]


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """An image's configuration."""

    config: Settings | None = None
    rootfs: RootFs | None = None


@dataclass(frozen=True, slots=True)
class TagList:
    """One page of the tags of a repository."""

    tags: list[Tag] | None


@dataclass(frozen=True, slots=True)
class Token:
    """What a token server gives, under one name or the other."""

    token: str = ""
    access_token: str = ""


def parse(kind: type[T], text: bytes, where: str) -> T:
    """What an answer says; `where` is its address or digest, for the error."""
    try:
        # Strict: "1" is no number, and 1 no text.
        found: T = _adapter(kind).validate_json(text, strict=True)  # type: ignore[arg-type]
    except ValidationError as error:
        raise odd(where, _reason(error)) from error
    return found


def odd(where: str, why: str) -> RemoteUnavailableError:
    """That somebody answers what no registry does."""
    return RemoteUnavailableError(f"{where}: is no answer of a registry", why=why[:_SHOWN])


def _reason(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place}: {first['msg']}" if place else first["msg"]


# Making one takes longer than reading a hundred answers.
@functools.cache
def _adapter(kind: Any) -> Any:  # noqa: ANN401 -- a class, and its TypeAdapter
    return TypeAdapter(kind)
