"""`builder releases --prune` on a real registry: what goes, and what something leans on stays."""

import json
from dataclasses import replace

import pytest

from builder.common.errors import RemoteUnavailableError, UsageError
from builder.release import prune as retention
from builder.release import record as records
from builder.release.prune import Pruned
from builder.release.record import Attachment, Release
from tests.support.docker_registry import DockerRegistry
from tests.support.registry_proxy import Fault
from tests.support.releasing import FLOATING, REPOSITORY, News, Publisher, killed, resolved

pytestmark = pytest.mark.engine

INDEX = "application/vnd.oci.image.index.v1+json"


@pytest.fixture
def three(publisher, tiny_images) -> list[Release]:
    """Three releases, the oldest first, each promoted in its turn."""
    return [publisher.publish(tiny_images.image(content)) for content in (b"1", b"2", b"3")]


def prune(who: Publisher, on=lambda _: None, **rules) -> Pruned:
    return retention.prune(retention.Request(**rules), who.record, News(on))


def why(pruned: Pruned) -> dict[str, str]:
    return {one.name: one.why for one in pruned.kept}


def gone(registry: DockerRegistry, release: Release) -> bool:
    named = registry.digest(REPOSITORY, release.name)
    return (named, registry.digest(REPOSITORY, release.digest)) == (None, None)


def put_index(registry: DockerRegistry, tag: str, *digests: str) -> None:
    """Somebody's multi-platform image of these manifests."""
    children = [
        {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": digest,
            "size": len(registry.ask("GET", f"{REPOSITORY}/manifests/{digest}").content),
            "platform": {"os": "linux", "architecture": architecture},
        }
        for digest, architecture in zip(digests, ("amd64", "arm64"), strict=False)
    ]
    page = {"schemaVersion": 2, "mediaType": INDEX, "manifests": children}
    registry.put(REPOSITORY, tag, INDEX, json.dumps(page).encode()).raise_for_status()


def attach(who: Publisher, registry: DockerRegistry, tag: str, *releases: Release) -> None:
    put_index(registry, tag)
    attached = Attachment("source", str(registry.digest(REPOSITORY, tag)), INDEX, tag)
    for one in releases:
        release = replace(who.recorded(one.name), attachments=[attached])
        records.write_release(who.record, release, who.index)


def older(who: Publisher, release: Release) -> None:
    """In the record the release was published in another year."""
    aged = replace(who.recorded(release.name), published="2020-01-01T00:00:00Z")
    records.write_release(who.record, aged, who.index)


def test_what_is_old_goes_with_its_tag(publisher, registry, three):
    assert prune(publisher, keep=1).deleted == [three[0].name]
    assert gone(registry, three[0])
    assert publisher.index.releases == [three[2].name, three[1].name]


def test_its_evidence_stays_in_the_record(publisher, three):
    prune(publisher, keep=1)
    recorded = publisher.recorded(three[0].name)
    assert (recorded.events[-1].what, recorded.proven) == ("deleted", three[0].proven)


def test_what_a_rollback_goes_back_to_stays(publisher, registry, three):
    assert why(prune(publisher, keep=1)) == {
        three[1].name: "a rollback of tiny-nightly goes back to it"
    }
    publisher.rollback()
    assert resolved(registry, "tiny") == three[1].digest


def test_what_the_floating_tags_stand_for_stays(publisher, registry, three):
    publisher.rollback(three[0].name)
    prune(publisher, keep=1)
    assert [resolved(registry, tag) for tag in FLOATING] == [three[0].digest] * 3


def test_what_another_tag_stands_for_stays(publisher, registry, three):
    manifest = registry.ask("GET", f"{REPOSITORY}/manifests/{three[0].digest}")
    kind = manifest.headers["Content-Type"]
    registry.put(REPOSITORY, "somebody-pinned-it", kind, manifest.content)
    assert (
        why(prune(publisher, keep=1))[three[0].name] == "the tag somebody-pinned-it stands for it"
    )
    assert resolved(registry, three[0].name) == three[0].digest


def test_what_a_multi_platform_image_is_made_of_stays(publisher, registry, three):
    put_index(registry, "both-platforms", three[0].digest, three[1].digest)
    assert "both-platforms" in why(prune(publisher, keep=1))[three[0].name]
    assert resolved(registry, three[0].name) == three[0].digest


def test_a_dry_run_deletes_nothing(publisher, registry, three):
    before = publisher.index
    assert prune(publisher, keep=1, dry_run=True).deleted == [three[0].name]
    assert resolved(registry, three[0].name) == three[0].digest
    assert publisher.index == before


@pytest.mark.usefixtures("three")
def test_what_is_young_stays(publisher):
    assert prune(publisher, keep=1, keep_days=30).deleted == []


def test_what_is_over_the_days_goes(publisher, three):
    older(publisher, three[0])
    assert prune(publisher, keep_days=30).deleted == [three[0].name]


def test_the_newest_stay_however_old(publisher, three):
    for release in three:
        older(publisher, release)
    assert prune(publisher, keep=3, keep_days=30).deleted == []


def test_what_was_attached_goes_with_it(publisher, registry, three):
    attach(publisher, registry, "source", three[0])
    prune(publisher, keep=1)
    assert registry.digest(REPOSITORY, "source") is None


def test_what_is_attached_to_another_release_too_stays(publisher, registry, three):
    attach(publisher, registry, "source", three[0], three[2])
    prune(publisher, keep=1)
    assert gone(registry, three[0])
    assert registry.digest(REPOSITORY, "source")


def test_a_registry_that_does_not_delete_changes_no_record(publisher, proxy, tiny_images):
    who = publisher.at(proxy.host)
    for content in (b"1", b"2", b"3"):
        who.publish(tiny_images.image(content))
    before = who.index
    proxy.faults = [Fault("DELETE", times=100, status=405)]
    with pytest.raises(RemoteUnavailableError, match="HTTP 405"):
        prune(who, keep=1)
    assert who.index == before


@pytest.mark.usefixtures("three")
def test_without_a_rule_nothing_is_old(publisher):
    with pytest.raises(UsageError, match="which releases are old"):
        prune(publisher)


def test_kill_while_it_deletes(publisher, registry, three):
    killed(lambda on: prune(publisher, on, keep=1), at="write down")
    assert gone(registry, three[0])
    assert prune(publisher, keep=1).deleted == [three[0].name]
    assert publisher.index.releases == [three[2].name, three[1].name]
