"""What a registry answers, checked where it comes in: its JSON by a schema, its names by a grammar.

https://github.com/opencontainers/image-spec/blob/main/manifest.md (and image-index.md, config.md,
descriptor.md); names: https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md
What a schema here does not name is left aside. Each `parse` raises RemoteUnavailableError.
"""

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from builder.common.errors import RemoteUnavailableError

T = TypeVar("T")

INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
ACCEPT = ", ".join([*INDEXES, *MANIFESTS])
"""The media types of all that a tag may stand for."""

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
    layers: Descriptors = field(default_factory=list)
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
class _Typed:
    """The one field that says what the others are."""

    mediaType: str = ""  # noqa: N815 -- its name there


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


# What a header can carry: https://www.rfc-editor.org/rfc/rfc6750#section-2.1
_Bearer = Annotated[str, Field(pattern=r"^[\x21-\x7e]*$")]


@dataclass(frozen=True, slots=True)
class _Token:
    """What a token server gives, under one name or the other."""

    token: _Bearer | None = None
    access_token: _Bearer | None = None


@dataclass(frozen=True, slots=True)
class _Error:
    code: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class _Errors:
    errors: list[_Error]


def parse(kind: type[T], text: bytes, where: str) -> T:
    """What an answer says; `where` is its address or digest, for the error."""
    try:
        # Strict: "1" is no number, and 1 no text.
        found: T = _adapter(kind).validate_json(text, strict=True)  # type: ignore[arg-type]
    except ValidationError as error:
        raise odd(where, _reason(error)) from error
    return found


@dataclass(frozen=True, slots=True)
class Checked:
    """A manifest or index that is what its digest and its media type say."""

    digest: str
    media_type: str
    content: ManifestContent | IndexContent


def manifest(body: bytes, headers: Mapping[str, str], url: str, name: str) -> Checked:
    """What was answered to a question for the manifest `name`, a tag or a digest."""
    digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
    for other in (name, headers.get("Docker-Content-Digest", "")):
        if other.startswith("sha256:") and other != digest:
            raise odd(url, f"other bytes than {other}")
    stated = parse(_Typed, body, url).mediaType
    kind = headers.get("Content-Type", "").partition(";")[0].strip() or stated or MANIFESTS[0]
    if kind not in (*INDEXES, *MANIFESTS):
        raise odd(url, f"its Content-Type is {kind}")
    if stated and stated != kind:
        raise odd(url, f"it is {kind} by its header, and {stated} by itself")
    return Checked(digest, kind, content_of(kind, body, url))


def content_of(media_type: str, body: bytes, where: str) -> ManifestContent | IndexContent:
    """What a manifest or index says, as its media type has it."""
    if media_type in INDEXES:
        return parse(IndexContent, body, where)
    return parse(ManifestContent, body, where)


def token(text: bytes, where: str) -> str:
    """What a token server gives to be shown."""
    found = parse(_Token, text, where)
    shown = found.token or found.access_token
    if not shown:
        raise odd(where, "it gives no token")
    return shown


def refusal(text: bytes) -> str:
    """A registry's own words on why it refuses, in one line; "" for no such words."""
    try:
        errors = parse(_Errors, text, "").errors
    except RemoteUnavailableError:
        return ""
    return "; ".join(f"{one.code}: {one.message}"[:_SHOWN] for one in errors[:3])


def odd(where: str, why: str) -> RemoteUnavailableError:
    """That somebody answers what no registry does."""
    what = f"{where}: the registry answers in a shape that is not its own"
    return RemoteUnavailableError(what, why=why[:_SHOWN])


def _reason(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place}: {first['msg']}" if place else first["msg"]


# Making one takes longer than reading a hundred answers.
@functools.cache
def _adapter(kind: Any) -> Any:  # noqa: ANN401 -- a class, and its TypeAdapter
    return TypeAdapter(kind)
