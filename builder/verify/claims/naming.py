"""Whether the image has the name that is its own."""

from collections.abc import Sequence

from builder.model.finding import Finding
from builder.model.labels import VARIANT
from builder.model.tags import floating
from builder.release.record import Attachment, deleted
from builder.verify.claims.subject import SHOWN, Claimed, unproven

_NAME = "its labels make an immutable tag, which stands for this digest"
_RECORD = "the record has this digest, this name, and all that goes with it"


def name(claimed: Claimed) -> Finding:
    """Whether the tag, the name that the labels make, and the digest go together."""
    image = claimed.image
    if image.name is None:
        return Finding("name", "fail", _NAME, "its labels make no such tag")
    own = (image.name, *floating(image.labels[VARIANT], claimed.pins.policy.default_variant))
    if image.tag and image.tag not in own:
        return Finding("name", "fail", _NAME, f"by its labels it is {image.name}, not {image.tag}")
    if image.named is None:
        return unproven("name", _NAME, f"the registry has no tag {image.name}")
    if image.named != image.digest:
        other = f"{image.name} stands for {image.named[:SHOWN]}, this is {image.digest[:SHOWN]}"
        return Finding("name", "fail", _NAME, other)
    return Finding("name", "pass", _NAME, f"{image.name} stands for it")


def record(claimed: Claimed) -> Finding:
    """Whether the record knows this very image, under this name, with what goes with it."""
    if not claimed.recorded:
        return unproven("record", _RECORD, "no --record")
    fault = _against_record(claimed)
    if fault:
        return Finding("record", "fail", _RECORD, fault)
    assert claimed.release is not None, "else that is the fault"  # noqa: S101
    return Finding("record", "pass", _RECORD, f"published {claimed.release.published}")


def _against_record(claimed: Claimed) -> str | None:
    image, release = claimed.image, claimed.release
    if release is None:
        return f"the record has no release {image.name or image.tag}"
    if release.digest != image.digest:
        other = f"{release.name} has digest {release.digest[:SHOWN]}"
        return f"by the record {other}, this is {image.digest[:SHOWN]}"
    if deleted(release):
        return f"by the record {release.name} was deleted"
    if image.tag in claimed.floating and claimed.floating[image.tag] != release.name:
        return f"by the record {image.tag} stands for {claimed.floating[image.tag]}"
    return _attachments(image.attachments, release.attachments)


def _attachments(there: Sequence[Attachment], recorded: Sequence[Attachment]) -> str | None:
    """What is missing of the recorded; more signatures may have come since, nothing else."""
    gone = [one for one in recorded if one not in there]
    if gone:
        return f"the record names what is not with the image: {_named(gone)}"
    more = [one for one in there if one not in recorded and one.kind != "signature"]
    return f"with the image is what the record does not name: {_named(more)}" if more else None


def _named(attachments: Sequence[Attachment]) -> str:
    return ", ".join(f"{one.kind} {one.digest[:SHOWN]}" for one in attachments)
