"""An image's layers in the form that `docker save` sends them, written by hand."""

import hashlib
import io
import tarfile
from types import SimpleNamespace

import pytest

from builder.common.errors import EngineError
from builder.image import files as image_files
from builder.image import tree as image_tree
from builder.image.files import layers
from tests.support.elf_bytes import elf

SECRET = b"the secret"


class Saved:
    """An image whose `save` gives these layers, lowest first."""

    def __init__(self, *layers: bytes) -> None:
        self.client = SimpleNamespace(images=SimpleNamespace(list=list))
        self.attrs = {"RootFS": {"Layers": [digest(layer) for layer in layers]}}
        # The engine sends blobs in the order of their names, not of the layers.
        files = {f"blobs/sha256/{len(layers) - n}": layer for n, layer in enumerate(layers)}
        files["blobs/sha256/config"] = b'{"architecture": "amd64"}'
        self.data = archive({name: files[name] for name in sorted(files)})

    def save(self, chunk_size):
        assert chunk_size > 0
        # Odd pieces: an engine ends a chunk where it likes.
        return (self.data[n : n + 777] for n in range(0, len(self.data), 777))


def digest(layer):
    return f"sha256:{hashlib.sha256(layer).hexdigest()}"


def archive(files, *more):
    """A tar archive of files with this content, and of these entries."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for member in more:
            tar.addfile(member)
    return buffer.getvalue()


def entry(name, kind, **values):
    member = tarfile.TarInfo(name)
    member.type = kind
    for key, value in values.items():
        setattr(member, key, value)
    return member


def read(*given, deep=lambda _: False):
    def scan(_path, window):
        return frozenset({"a secret"} if SECRET in window else ())

    return layers(Saved(*given), scan=scan, deep=deep)


def only(given, path):
    (layer,) = given
    return next(file for file in layer.files if file.path == path)


def test_layers_come_in_the_manifests_order():
    found = read(archive({"a": b""}), archive({"b": b""}), archive({"c": b""}))

    assert [layer.files[0].path for layer in found] == ["/a", "/b", "/c"]


def test_an_empty_layer_is_a_layer():
    assert [len(layer.files) for layer in read(archive({}), archive({"a": b""}))] == [0, 1]


def test_each_kind_of_entry_with_its_rights():
    made = archive(
        {"a/file": b"#!/bin/sh"},
        entry("a", tarfile.DIRTYPE, mode=0o1777),
        entry("a/link", tarfile.SYMTYPE, linkname="../b"),
        entry("dev/null", tarfile.CHRTYPE),
        entry("a/ping", tarfile.REGTYPE, pax_headers={"SCHILY.xattr.security.capability": "x"}),
    )
    (layer,) = read(made)
    found = {file.path: file for file in layer.files}

    assert {path: file.kind for path, file in found.items()} == {
        "/a/file": "file",
        "/a": "folder",
        "/a/link": "link",
        "/dev/null": "device",
        "/a/ping": "file",
    }
    assert (found["/a"].mode, found["/a/link"].target) == (0o1777, "../b")
    assert (found["/a/file"].script, found["/a/ping"].script) == (True, False)
    assert (found["/a/file"].capability, found["/a/ping"].capability) == ("", "78")


def test_what_runs_with_rights_is_known_by_its_content_and_owner():
    su = entry("su", tarfile.REGTYPE, mode=0o4755, uid=1, gid=2)
    capable = entry("ping", tarfile.REGTYPE, pax_headers={"SCHILY.xattr.security.capability": "x"})
    (layer,) = read(archive({"plain": b""}, su, capable))
    nothing = hashlib.sha256(b"").hexdigest()

    assert {file.path: (file.owner, file.digest) for file in layer.files} == {
        "/plain": ((0, 0), ""),
        "/su": ((1, 2), nothing),
        "/ping": ((0, 0), nothing),
    }


def test_what_a_layer_takes_away():
    (layer,) = read(archive({"a/.wh.b": b"", "c/.wh..wh..opq": b""}))

    assert (layer.files, layer.removed, layer.emptied) == ((), {"/a/b"}, {"/c"})


def test_a_second_name_has_the_content_and_no_size_of_its_own():
    made = archive({"a": elf(tags=(("needed", "x"),))}, entry("b", tarfile.LNKTYPE, linkname="a"))
    found = only(read(made), "/b")

    assert found.elf is not None
    assert (found.elf.needed, found.size) == (("x",), 0)


def test_a_second_name_of_a_lower_layers_file_has_its_content():
    lower = archive({"a": elf(tags=(("needed", "x"),))}, entry("su", tarfile.REGTYPE, mode=0o4755))
    names = [entry(new, tarfile.LNKTYPE, linkname=old) for new, old in (("b", "a"), ("c", "su"))]
    _, layer = read(lower, archive({"other": b""}, *names))
    found = {file.path: file for file in layer.files}

    assert set(found) == {"/other", "/b", "/c"}
    assert found["/b"].elf is not None
    assert (found["/b"].elf.needed, found["/b"].size, found["/c"].mode) == (("x",), 0, 0o4755)


@pytest.mark.parametrize(
    "lower",
    [archive({}), archive({"a": b""})],
    ids=["never there", "removed since"],
)
def test_a_second_name_of_nothing_leads_nowhere(lower):
    gone = archive({".wh.a": b""})
    name = entry("new", tarfile.LNKTYPE, linkname="a")
    found = read(lower, gone, archive({}, name))

    assert only(found[2:], "/new").kind == "link"
    assert image_tree.merge(found).resolve("/new") is None


def test_a_name_that_no_terminal_can_show_is_told_in_escapes():
    link = entry("l", tarfile.SYMTYPE, linkname="caf\udce9")
    (layer,) = read(archive({"caf\udce9/a\nb": b"", "\x1b[31m": b"", "é": b""}, link))

    assert [file.path for file in layer.files] == ["/caf\\xe9/a\\nb", "/\\x1b[31m", "/é", "/l"]
    assert layer.files[-1].target == "caf\\xe9"


@pytest.mark.parametrize("before", [0, 256 * 1024 - 4, 600_000])
def test_a_secret_is_found_wherever_it_lies(before):
    assert only(read(archive({"a": b"x" * before + SECRET})), "/a").secrets == {"a secret"}


def test_a_file_without_one_has_none():
    assert only(read(archive({"a": b"x" * 600_000})), "/a").secrets == frozenset()


def test_an_elf_file_longer_than_a_window_is_read_whole():
    made = archive({"a": elf(code=b"\xc3" * 700_000 + bytes.fromhex("c5f058c2"))})
    found = only(read(made, deep=lambda path: path == "/a"), "/a").elf

    assert found is not None
    assert "AVX" in (found.extensions or {})


def test_only_the_files_asked_for_keep_their_text():
    (layer,) = read(archive({"etc/passwd": b"root:x:0:0", "etc/other": b"x"}))

    assert {file.path: file.text for file in layer.files} == {
        "/etc/passwd": b"root:x:0:0",
        "/etc/other": None,
    }
    assert "/etc/ld.so.cache" in image_files.KEPT


def test_a_layer_that_is_no_tar_archive_is_an_error():
    with pytest.raises(EngineError, match="cannot be read"):
        read(b"no archive" * 100)
