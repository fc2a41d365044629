"""How an image came to be: valid by in-toto's own library, and true."""

import json

import pytest
from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.v1.statement import Statement

from builder.release import provenance
from tests.support.published import COMMIT, DIGEST, REPOSITORY, URL, a_receipt

BESIDE = {"sbom.spdx.json": "1" * 64, "source.tar.gz": "2" * 64}


def made(**changes) -> dict:
    receipt = a_receipt(**changes)
    return provenance.statement(REPOSITORY, DIGEST, receipt, url=URL, beside=BESIDE)


@pytest.mark.parametrize(
    "statement",
    [made(), made(commit="0c1e57098", commit_claimed=True, source="--source /home/me/llama")],
    ids=["from git", "from disk"],
)
def test_in_toto_finds_nothing_wrong(statement):
    Statement.copy_from_pb(json_format.ParseDict(statement, Statement([], "", {}).pb)).validate()
    # Unknown fields, and those of another type, are errors here.
    json_format.ParseDict(statement["predicate"], provenance_pb2.Provenance())


def test_it_is_about_the_image_by_digest():
    assert made()["subject"] == [{"name": REPOSITORY, "digest": {"sha256": "d" * 64}}]


def test_what_went_in_is_named_by_digest():
    inputs = made()["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert {one["name"]: one["digest"] for one in inputs} == {
        "source": {"gitCommit": COMMIT},
        "devel": {"sha256": "a" * 64},
        "runtime": {"sha256": "b" * 64},
        "Dockerfile": {"sha256": "f" * 64},
    }


def test_a_commit_that_is_only_claimed_is_in_annotations_alone():
    definition = made(commit_claimed=True, ref=COMMIT)["predicate"]["buildDefinition"]
    source = definition["resolvedDependencies"][0]
    said = source.pop("annotations")
    assert (said["claimed"], said["commit"], said["ref"]) == (True, COMMIT, COMMIT)
    assert source == {"name": "source", "digest": {"sha256": BESIDE["source.tar.gz"]}}
    assert COMMIT not in json.dumps(definition)


def test_what_goes_with_the_image_is_named_by_its_sum():
    byproducts = made()["predicate"]["runDetails"]["byproducts"]
    assert {one["name"]: one["digest"]["sha256"] for one in byproducts} == BESIDE


def test_the_times_are_the_builds():
    assert made()["predicate"]["runDetails"]["metadata"] == {
        "startedOn": "2026-11-20T10:19:00Z",
        "finishedOn": "2026-11-20T10:20:30Z",
    }


def test_no_path_of_the_building_machine_is_told():
    text = json.dumps(made(source="--source /home/me/llama", log="/home/me/build.log"))
    assert "/home/me" not in text
