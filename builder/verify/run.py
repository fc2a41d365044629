"""Is a published image the one that it says it is? Asked of its registry, and of who vouches.

What lies beside the image can be made up by whoever may write there. So it is held against what
cannot: the Dockerfile that these pins render, a signature by a known key, the record of releases.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Literal

from builder.common.progress import Progress
from builder.model.finding import Finding, Status
from builder.model.labels import VARIANT
from builder.model.pins import Pins
from builder.registry import login as registry_login
from builder.registry.client import RegistryClient
from builder.release import cosign, provenance, published
from builder.release.published import Published
from builder.release.record import rebuilt
from builder.release.record_source import RecordSource
from builder.verify.claims.documents import attestation, evidence, sbom, source, statement
from builder.verify.claims.naming import name, record
from builder.verify.claims.promises import promises
from builder.verify.claims.recipe import labels, recipe
from builder.verify.claims.subject import Claimed, Signed

CLAIMS: tuple[Callable[[Claimed], Finding], ...] = (
    name,
    recipe,
    labels,
    source,
    sbom,
    statement,
    evidence,
    attestation,
    record,
    promises,
)
"""All claims but the signature, in the order of the report."""


@dataclass(frozen=True, slots=True)
class Verification:
    """The verdict on a published image; `name` is the release that its labels make it.

    `vouched` is who vouches for the digest and does not lie beside the image. Without anybody all
    of it may be made up.
    """

    image: str
    digest: str
    variant: str | None
    name: str | None
    findings: list[Finding]
    vouched: list[Literal["signature", "record"]]
    schema: int = 1

    @property
    def verdict(self) -> Status:
        """What fails is as good as false; what nobody vouches for is unproven."""
        if any(one.status == "fail" for one in self.findings):
            return "fail"
        return "pass" if self.vouched else "unproven"

    @property
    def passed(self) -> bool:
        """Whether the image is what it says it is."""
        return self.verdict == "pass"

    @property
    def headline(self) -> str:
        """The verdict in one line."""
        failed = [one.probe for one in self.findings if one.status == "fail"]
        unproven = [one.probe for one in self.findings if one.status == "unproven"]
        rest = f"; not proven: {', '.join(unproven)}" if unproven else ""
        what = self.name or "nothing that builder names"
        if self.verdict == "fail":
            return f"FAIL  {self.image} is not what it says it is: {', '.join(failed)}{rest}"
        if self.verdict == "unproven":
            lacks = "no signature and no record vouch for it"
            return f"NOT PROVEN  {self.image} says that it is {what}: {lacks}{rest}"
        return f"PASS  {self.image} is {what}, by its {' and its '.join(self.vouched)}{rest}"


def verify(
    reference: str,
    pins: Pins,
    progress: Progress,
    *,
    signer: cosign.Signer | None = None,
    records: RecordSource | None = None,
) -> Verification:
    """Hold an image in a registry against pins, signer and record. Nothing is pulled or written.

    Raises RefNotFoundError when there is no such image, RemoteUnavailableError when registry or
    record do not answer, UsageError when the record is none.
    """
    with registry_login.own_registry(pins.policy.release.repository):
        with RegistryClient(published.repository_of(reference)) as repository:
            image = published.read(repository, reference, progress)
        progress.step("look at the signature")
        signed = _signed(image, signer)
    if records is None:
        return judge(reference, Claimed(image, pins, signed))
    progress.step("read the record")
    index = records.index()
    known = image.name is not None and image.name in index.releases
    release = records.release(str(image.name)) if known else None
    claimed = Claimed(image, pins, signed, recorded=True, release=release, floating=index.floating)
    return judge(reference, claimed)


def judge(reference: str, claimed: Claimed) -> Verification:
    """The verdict on what was read."""
    image, signed, release = claimed.image, claimed.signed, claimed.release
    vouched: list[Literal["signature", "record"]] = []
    if signed.status == "pass":
        vouched.append("signature")
    if release is not None and release.digest == image.digest and not rebuilt(release):
        vouched.append("record")
    signature = Finding("signature", signed.status, "signed by who was named", signed.observed)
    return Verification(
        image=reference,
        digest=image.digest,
        variant=image.labels.get(VARIANT),
        name=image.name,
        findings=[*(claim(claimed) for claim in CLAIMS), signature],
        vouched=vouched,
    )


def to_json(made: Verification) -> str:
    """The verification as indented JSON, with its verdicts beside its fields."""
    verdicts = {"verdict": made.verdict, "passed": made.passed}
    return json.dumps({**asdict(made), **verdicts}, indent=2)


def _signed(image: Published, signer: cosign.Signer | None) -> Signed:
    there = [one for one in image.attachments if one.kind == "signature"]
    if signer is None:
        found = "it is signed, and no --key says by whom" if there else "it is not signed"
        return Signed("unproven", f"not checked: {found}")
    if not there:
        return Signed("fail", "it is not signed")
    program = cosign.find()
    if program is None:
        return Signed("unproven", "not checked: cosign is not installed")
    if not program.bundles and all(one.media_type == cosign.BUNDLE for one in there):
        return Signed("unproven", "not checked: by cosign 3 or newer, and the one here is older")
    reference = f"{image.repository}@{image.digest}"
    refusal = cosign.verify(program, reference, signer)
    if refusal is not None:
        return Signed("fail", f"not by who was named: {refusal.why}")
    told = cosign.attested(program, reference, provenance.PREDICATE, signer)
    predicates = [] if isinstance(told, cosign.Refusal) else told
    return Signed("pass", "it is", list(predicates))
