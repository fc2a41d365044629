"""What two archives of an image differ in."""

import dataclasses
import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from builder.audit import reproduce
from builder.common.errors import EngineError
from builder.image import archive as image_archive
from builder.image import layer_diff
from builder.image.layer_diff import Content, Difference
from tests.support.elf_bytes import elf


def tar(files: dict[str, bytes | tarfile.TarInfo]) -> bytes:
    """A tar archive; a TarInfo stands for a file without content."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in files.items():
            if isinstance(content, tarfile.TarInfo):
                content.name = name
                archive.addfile(content)
            else:
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return written.getvalue()


def entry(**changes: object) -> tarfile.TarInfo:
    """A member of a layer with these fields."""
    found = tarfile.TarInfo()
    for name, value in changes.items():
        setattr(found, name, value)
    return found


class Blobs(dict[str, bytes]):
    """The members of an image layout, by name."""

    def put(self, content: bytes | dict) -> dict[str, str]:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        digest = hashlib.sha256(data).hexdigest()
        self[f"blobs/sha256/{digest}"] = data
        return {"digest": f"sha256:{digest}"}


def write(path: Path, blobs: Blobs, *descriptors: dict) -> image_archive.Archive:
    index = json.dumps({"manifests": descriptors}).encode()
    path.write_bytes(tar({**blobs, "index.json": index}))
    return image_archive.read(path)


def manifest(blobs: Blobs, *layers: bytes, config: dict | None = None) -> dict:
    found = {"config": blobs.put(config or {}), "layers": [blobs.put(one) for one in layers]}
    return blobs.put(found)


@pytest.fixture
def image(tmp_path):
    """Makes an archive of an image with these layers and this configuration."""

    def make(*layers: bytes, config: dict | None = None) -> image_archive.Archive:
        blobs = Blobs()
        number = len(list(tmp_path.iterdir()))
        return write(tmp_path / f"{number}.tar", blobs, manifest(blobs, *layers, config=config))

    return make


@pytest.fixture
def differences(image):
    """The files that differ between two images of one layer each."""

    def find(first: dict, second: dict, *, times: bool = True) -> list[Difference]:
        return reproduce._files(image(tar(first)), image(tar(second)), times=times)

    return find


@pytest.fixture
def content(differences):
    """Where the contents of one file differ."""

    def find(first: bytes, second: bytes) -> Content:
        (found,) = differences({"x": first}, {"x": second})
        return found.content

    return find


# --- archives


def test_the_manifests_digest_is_the_images(image):
    assert image(tar({"x": b"1"})).manifest == image(tar({"x": b"1"})).manifest
    assert image(tar({"x": b"1"})).manifest != image(tar({"x": b"2"})).manifest


def test_the_image_is_found_beside_its_attestations(tmp_path):
    blobs = Blobs()
    wanted = manifest(blobs, tar({}))
    other = manifest(blobs, tar({"x": b""}))
    about = {**other, "annotations": {"vnd.docker.reference.type": "attestation-manifest"}}
    inner = blobs.put({"manifests": [about, wanted]})

    assert write(tmp_path / "index.tar", blobs, inner).manifest == wanted["digest"]


def test_an_engines_older_format_is_read(tmp_path):
    described = [{"Config": "a.json", "Layers": ["a/layer.tar"]}]
    members = {"manifest.json": json.dumps(described).encode(), "a.json": b'{"os": "linux"}'}
    path = tmp_path / "saved.tar"
    path.write_bytes(tar({**members, "a/layer.tar": tar({})}))

    found = image_archive.read(path)

    assert (found.manifest, found.config) == (None, {"os": "linux"})
    assert found.layers == ("a/layer.tar",)


@pytest.mark.parametrize("data", [b"no archive", tar({}), tar({"index.json": b"{"})])
def test_what_is_no_image_is_an_engines_error(tmp_path, data):
    path = tmp_path / "broken.tar"
    path.write_bytes(data)
    with pytest.raises(EngineError, match="cannot be read"):
        image_archive.read(path)


# --- files


def test_equal_files_differ_in_nothing_whatever_packs_them(image):
    layer = tar({"x": b"1"})
    packed = image(gzip.compress(layer, mtime=1)), image(gzip.compress(layer, mtime=2))
    assert reproduce._files(*packed, times=True) == []


@pytest.mark.parametrize(
    ("first", "second", "what"),
    [
        ({"mode": 0o644}, {"mode": 0o600}, "mode"),
        ({"uid": 1}, {"uid": 2}, "owner"),
        ({"gid": 1}, {"gid": 2}, "owner"),
        ({"mtime": 1}, {"mtime": 2}, "mtime"),
        ({"type": tarfile.SYMTYPE, "linkname": "a"}, {"type": tarfile.SYMTYPE}, "target"),
        ({"type": tarfile.DIRTYPE}, {"type": tarfile.REGTYPE}, "kind"),
        ({"pax_headers": {"SCHILY.xattr.user.x": "1"}}, {}, "attributes"),
    ],
)
def test_a_file_that_differs_is_named_with_what(differences, first, second, what):
    found = differences({"etc/x": entry(**first)}, {"etc/x": entry(**second)})
    assert found == [Difference(1, "/etc/x", (what,))]


def test_times_count_only_where_they_are_asked_for(differences):
    assert differences({"x": entry(mtime=1)}, {"x": entry(mtime=2)}, times=False) == []


def test_a_file_of_one_side_is_named_with_the_side(differences):
    found = differences({"a": b"", "b": b""}, {"b": b"", "c": b""})
    assert [(one.path, one.what) for one in found] == [
        ("/a", ("only in the first",)),
        ("/c", ("only in the second",)),
    ]


def test_the_layer_is_named_by_its_number(image):
    same = tar({"a": b""})
    first, second = (image(same, tar({"x": data})) for data in (b"1", b"2"))
    assert [one.layer for one in reproduce._files(first, second, times=True)] == [2]


def test_a_second_name_of_a_file_is_no_difference(differences):
    files = {"a": b"1", "b": entry(type=tarfile.LNKTYPE, linkname="a")}
    assert differences(files, {**files, "c": b""}) == [Difference(1, "/c", ("only in the second",))]


def test_only_so_many_contents_are_compared(differences):
    many = reproduce.MOST_NAMED + 5
    found = differences(*({str(i): data for i in range(many)} for data in (b"1", b"2")))
    assert len(found) == many
    assert sum(one.content is not None for one in found) == reproduce.MOST_NAMED


# --- contents


@pytest.mark.parametrize("offset", [0, 7, layer_diff._CHUNK, layer_diff._CHUNK + 1])
def test_the_first_byte_that_differs_is_found(content, offset):
    first = bytes(2 * layer_diff._CHUNK)
    second = first[:offset] + b"\xff\xfe" + first[offset + 2 :]
    found = content(first, second)
    assert (found.offset, found.first[:6], found.second[:6]) == (offset, "000000", "fffe00")


def test_a_file_that_goes_on_differs_at_the_others_end(content):
    found = content(b"same", b"same and more")
    assert (found.offset, found.first, found.second) == (4, "", b" and more".hex())


def test_an_elf_files_section_is_named(content):
    found = content(elf(code=b"\x90\xc3"), elf(code=b"\x90\xcc"))
    assert found.section == ".text"


def test_the_linkers_hash_is_passed_over_where_more_differs(content):
    first, second = (elf(build_id=one, code=one) for one in (b"11111111", b"22222222"))
    assert content(first, second).section == ".text"


def test_the_linkers_hash_alone_is_named(content):
    found = content(elf(build_id=b"11111111"), elf(build_id=b"22222222"))
    assert (found.section, found.looks_like) == (
        ".note.gnu.build-id",
        "the linker's hash of what is stripped",
    )


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        (b"at 2026-11-21 04:00:01", b"at 2026-11-21 04:00:02", "a date or a time of day"),
        (b"built Nov 21 2026", b"built Nov 22 2026", "a date"),
        (b"1795400001", b"1795400002", "seconds or nanoseconds since 1970"),
        (b"tmpxft_0000001a_0", b"tmpxft_0000002b_0", "a temporary name of nvcc"),
        (b"/tmp/cc1.o", b"/tmp/cc2.o", "a temporary name"),
        (b"\x1f\x8b\x08\x00\x01\x00\x00\x00", b"\x1f\x8b\x08\x00\x02\x00\x00\x00", "the time in"),
        (b"!<arch>\nfile.o/ 1", b"!<arch>\nfile.o/ 2", "a member of a static archive"),
        (b"red", b"blue", ""),
    ],
)
def test_what_it_looks_like_is_said(content, first, second, words):
    found = content(first, second).looks_like
    assert found.startswith(words)
    assert bool(found) == bool(words)


# --- configuration and verdict


def test_a_configuration_that_differs_is_named_by_its_place():
    first = {"config": {"Labels": {"a": "1"}}, "history": [{"created": "x"}], "rootfs": {"b": 1}}
    second = {"config": {"Labels": {"a": "2"}}, "history": [{"created": "y"}], "rootfs": {"b": 2}}
    found = reproduce._config(first, second)
    assert [(one.place, one.first, one.second) for one in found] == [
        ("config.Labels.a", '"1"', '"2"'),
        ("history[0].created", '"x"', '"y"'),
    ]


FILE = Difference(1, "/etc/x", ("content",))
PLACE = reproduce.ConfigDifference("created", '"x"', '"y"')


@pytest.mark.parametrize(
    ("files", "config", "digests", "status", "words"),
    [
        ([], [], ("sha256:a", "sha256:a"), "pass", "sha256:a"),
        ([FILE], [], ("sha256:a", "sha256:b"), "fail", "1 file differs: /etc/x"),
        ([], [PLACE], ("sha256:a", "sha256:b"), "fail", "the configuration differs: created"),
        ([], [], ("sha256:a", "sha256:b"), "fail", "packed"),
        ([FILE], [], (), "fail", "/etc/x"),
        ([], [], (), "unproven", "containerd image store"),
    ],
)
def test_the_verdict(files, config, digests, status, words):
    found = reproduce._verdict(files, config, digests)
    assert found[0] == status
    assert words in found[1]


def test_long_lists_are_cut_in_the_headline():
    files = [dataclasses.replace(FILE, path=f"/{i}") for i in range(9)]
    assert reproduce._verdict(files, [], ())[1] == "9 files differ: /0, /1, /2 and 6 more"
