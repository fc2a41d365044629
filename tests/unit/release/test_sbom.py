"""The list of an image's parts: valid SPDX by SPDX's own library, and true."""

import json

import pytest
from spdx_tools.spdx.model import Document, RelationshipType
from spdx_tools.spdx.parser.jsonlikedict.json_like_dict_parser import JsonLikeDictParser
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

from builder.image import contents as image_contents
from builder.image.contents import Contents, Package
from builder.release import sbom
from tests.support.published import COMMIT, CONTENTS, DIGEST, REPOSITORY, URL, a_receipt


def made(**changes) -> dict:
    known = {"url": URL, "licence": "MIT", "contents": CONTENTS, "receipt": a_receipt()}
    known |= {"archive": "e" * 64} | changes
    return sbom.document(REPOSITORY, DIGEST, **known)


def parsed(document: dict) -> Document:
    return JsonLikeDictParser().parse(json.loads(json.dumps(document)))


@pytest.mark.parametrize(
    "document",
    [
        made(),
        made(licence=None, url="", receipt=a_receipt(commit="0c1e57098", commit_claimed=True)),
        made(contents=Contents((), (), "")),
    ],
    ids=["a fork on GitHub", "a claimed short commit", "an image without dpkg"],
)
def test_spdx_finds_nothing_wrong(document):
    assert validate_full_spdx_document(parsed(document)) == []


def test_the_document_is_about_the_image_by_digest():
    document = parsed(made())
    (described,) = [
        one for one in document.relationships if one.relationship_type == RelationshipType.DESCRIBES
    ]
    (image,) = [
        one for one in document.packages if one.spdx_id == described.related_spdx_element_id
    ]
    assert (image.name, image.version) == (REPOSITORY, DIGEST)


def test_the_source_is_the_forks_commit_with_the_licence_that_it_names():
    (source,) = [one for one in parsed(made()).packages if one.spdx_id == "SPDXRef-source"]
    assert source.download_location == f"git+{URL}@{COMMIT}"
    assert str(source.license_declared) == "MIT"
    assert source.external_references[0].locator == f"pkg:github/somebody/llama-fork@{COMMIT}"


def test_a_commit_that_is_only_claimed_is_neither_version_nor_place():
    document = made(receipt=a_receipt(commit_claimed=True))
    (source,) = [one for one in document["packages"] if one["SPDXID"] == "SPDXRef-source"]
    assert source.pop("sourceInfo").endswith(f"its commit is claimed, not checked: {COMMIT}")
    assert source["checksums"] == [{"algorithm": "SHA256", "checksumValue": "e" * 64}]
    assert COMMIT not in json.dumps(document)


def test_a_licence_that_nobody_looked_at_is_not_asserted():
    document = made(licence=None)
    assert {one["licenseDeclared"] for one in document["packages"]} == {"NOASSERTION"}


def held(document: dict, by: str) -> list[str]:
    return [
        one["relatedSpdxElement"]
        for one in document["relationships"]
        if (one["spdxElementId"], one["relationshipType"]) == (by, "CONTAINS")
    ]


def test_every_package_and_file_is_in_the_image():
    document = made()
    parts = ["SPDXRef-server", "SPDXRef-toolkit"]
    packages = ["SPDXRef-deb-libstdc-6-amd64", "SPDXRef-deb-tzdata-all"]
    assert held(document, "SPDXRef-image") == [*parts, *packages]
    files = sorted(one["SPDXID"] for one in document["files"])
    assert sorted(held(document, parts[0]) + held(document, parts[1])) == files


def test_a_package_has_the_name_that_scanners_know():
    (package,) = [one for one in made()["packages"] if one["name"] == "libstdc++6"]
    assert package["externalRefs"][0]["referenceLocator"] == (
        "pkg:deb/debian/libstdc%2B%2B6@14.2.0-19%2Bdeb13u1?arch=amd64"
    )


def test_the_toolkits_libraries_are_not_said_to_come_from_the_fork():
    document = made()
    (generated,) = [
        one for one in document["relationships"] if one["relationshipType"] == "GENERATED_FROM"
    ]
    assert "SPDXRef-file-opt-llama-libcublas.so.12" not in held(
        document, generated["spdxElementId"]
    )
    assert held(document, "SPDXRef-toolkit") == ["SPDXRef-file-opt-llama-libcublas.so.12"]


def test_no_path_of_the_building_machine_is_told():
    receipt = a_receipt(source="--source /home/me/llama", commit_claimed=True)
    text = json.dumps(made(receipt=receipt))
    assert "/home/me" not in text
    assert "a tree from disk; its commit is claimed, not checked" in text


def test_only_installed_packages_are_listed():
    status = (
        "Package: a\nStatus: install ok installed\nVersion: 1:2.0\nArchitecture: amd64\n"
        "Description: first\n Version: of no package\n\n"
        "Package: b\nStatus: deinstall ok config-files\nVersion: 3\nArchitecture: amd64\n\n"
    )
    assert [*image_contents.packages(status)] == [Package("a", "1:2.0", "amd64")]


@pytest.mark.parametrize("text", ["ID=debian\n", 'NAME="Debian"\nID="debian"\n'])
def test_the_distribution_is_read_from_os_release(text):
    assert image_contents.distribution(text) == "debian"
