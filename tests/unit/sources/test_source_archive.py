"""A source tree as one file: the same bytes each time, and nothing outside whatever it says."""

import bz2
import contextlib
import gzip
import io
import lzma
import random
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from builder.common import files
from builder.common.errors import UsageError
from builder.pins import load as pins
from builder.sources import archive as source_archive
from builder.sources import tree as source
from builder.sources.archive import Known

COMMIT = "c" * 40
KNOWN = Known(COMMIT, 77, "2026-05-01T10:20:30Z")
PROJECT = b"project(tiny)\n"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    made = tmp_path / "tree"
    (made / ".git").mkdir(parents=True)
    (made / ".git" / "config").write_text("url = https://name:word@host\n")
    (made / "CMakeLists.txt").write_bytes(PROJECT)
    (made / "tools" / "empty").mkdir(parents=True)
    (made / "tools" / "run").write_text("#!/bin/sh\n")
    (made / "tools" / "run").chmod(0o700)
    (made / "tools" / "lists").symlink_to("../CMakeLists.txt")
    return made


def packed(tree: Path, known: Known = KNOWN) -> Path:
    archive = tree.parent / f"{tree.name}.tar.gz"
    source_archive.write(tree, archive, "tiny-ccccccccc", known)
    return archive


def test_what_is_packed_comes_out_as_it_was(tree, tmp_path):
    source_archive.extract(packed(tree), tmp_path / "out")
    top = tmp_path / "out" / "tiny-ccccccccc"
    assert (top / "CMakeLists.txt").read_bytes() == PROJECT
    assert (top / "tools" / "run").stat().st_mode & 0o777 == 0o755
    assert (top / "tools" / "lists").readlink() == Path("../CMakeLists.txt")
    assert (top / "tools" / "empty").is_dir()


def test_git_has_its_own_place_and_stays_out(tree):
    with tarfile.open(packed(tree)) as tar:
        assert not [name for name in tar.getnames() if ".git" in name]


def test_the_same_tree_gives_the_same_bytes_elsewhere_and_later(tree, tmp_path):
    first = packed(tree).read_bytes()
    other = tmp_path / "elsewhere" / "copy"
    other.parent.mkdir()
    subprocess.run(["cp", "-r", tree, other], check=True)  # new times, another order in the folder
    assert packed(other).read_bytes() == first


def test_an_archive_tells_its_commit_number_and_date(tree):
    assert source_archive.read(packed(tree)) == KNOWN


def test_git_reads_the_commit_of_an_archive(tree):
    content = subprocess.run(
        ["gunzip"], input=packed(tree).read_bytes(), capture_output=True, check=True
    )
    told = subprocess.run(
        ["git", "get-tar-commit-id"], input=content.stdout, capture_output=True, check=True
    )
    assert told.stdout.decode().strip() == COMMIT


def test_an_archive_of_gits_own_is_read_too(repository, tmp_path, progress):
    archive = tmp_path / "made-by-git.tar.gz"
    repository.git("archive", "--prefix=fork-1/", f"--output={archive}", "HEAD")
    unpacked = source_archive.unpack(archive, progress)
    assert (unpacked.path / "server.cpp").is_file()
    assert unpacked.known.commit == repository.git("rev-parse", "HEAD")
    seconds = repository.git("log", "-1", "--format=%ct")
    assert (
        unpacked.known.created
        == subprocess.run(
            ["date", "-u", f"-d@{seconds}", "+%FT%TZ"], capture_output=True, text=True, check=True
        ).stdout.strip()
    )


def test_a_link_out_of_the_tree_is_not_packed(tree):
    (tree / "out").symlink_to("/etc/passwd")
    with pytest.raises(UsageError) as caught:
        packed(tree)
    assert "out is a link out of it, to /etc/passwd" in caught.value.why
    assert not (tree.parent / "tree.tar.gz").exists()


def member(name: str, **attributes: object) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    for key, value in attributes.items():
        setattr(made, key, value)
    return made


def link(name: str, target: str) -> tarfile.TarInfo:
    return member(name, type=tarfile.SYMTYPE, linkname=target)


HOSTILE: dict[str, list[tarfile.TarInfo]] = {
    "an absolute path": [member("/escaped")],
    "a path upwards": [member("a/../../escaped")],
    "an absolute link": [link("a", "/tmp")],
    "a link upwards": [link("a", "../escaped")],
    "a file through a link": [link("a", ".."), member("a/escaped")],
    "a link through a link": [link("a", ".."), link("a/escaped", "CMakeLists.txt")],
    "a link that another one bends": [link("a", "b/../escaped"), link("b", ".")],
    "links in a chain": [link("d/e/b", "../.."), link("a", "d/e/b/../escaped")],
    "a hard link": [member("a", type=tarfile.LNKTYPE, linkname="/etc/passwd")],
    "a device": [member("a", type=tarfile.CHRTYPE)],
    "a pipe": [member("a", type=tarfile.FIFOTYPE)],
    "a file twice": [member("a"), member("a")],
    "folders in folders": [member("/".join("a" * 1500))],
}


@pytest.mark.parametrize("members", HOSTILE.values(), ids=HOSTILE)
def test_nothing_leaves_the_folder(members, tmp_path, private_cache, progress):
    archive = tmp_path / "hostile.tar"
    with tarfile.open(archive, "w") as tar:
        project = member("CMakeLists.txt", size=len(PROJECT))
        tar.addfile(project, io.BytesIO(PROJECT))
        for one in members:
            tar.addfile(one)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UsageError):
        source_archive.unpack(archive, progress)
    left = [one for one in (private_cache / "archives").iterdir() if one.suffix != ".lock"]
    assert left == []
    assert [one for one in sorted(tmp_path.iterdir()) if one.name != "cache"] == before
    assert not list(tmp_path.rglob("escaped"))


def test_an_archive_that_never_ends_is_given_up(tree, tmp_path, monkeypatch):
    monkeypatch.setattr(source_archive, "_LARGEST", 20)
    with pytest.raises(UsageError) as caught:
        source_archive.extract(packed(tree), tmp_path / "out")
    assert "more than 20 bytes" in caught.value.why


def headers(kind: bytes, size: int, count: int = 1) -> bytes:
    """Headers of this kind that say to be so large; of no more than 512 bytes they are whole."""
    made = member("x", type=kind, size=size).tobuf(tarfile.GNU_FORMAT)
    return (made + b"\0" * (512 if size <= 512 else 0)) * count


SWOLLEN = {
    "a pax header of 1.5 GB": headers(tarfile.XHDTYPE, 1_500_000_000),
    "one for all of 1.5 GB": headers(tarfile.XGLTYPE, 1_500_000_000),
    "a long name of 1 GB": headers(tarfile.GNUTYPE_LONGNAME, 1_000_000_000),
    "a long link of 1 GB": headers(tarfile.GNUTYPE_LONGLINK, 1_000_000_000),
    "headers of headers": headers(tarfile.GNUTYPE_LONGNAME, 9, 5000),
    "a file with holes": headers(tarfile.GNUTYPE_SPARSE, 9),
    "fewer bytes than none": headers(tarfile.REGTYPE, -512),
}


@pytest.mark.parametrize("content", SWOLLEN.values(), ids=SWOLLEN)
def test_no_header_fills_the_memory(content, tmp_path, private_cache, progress):
    archive = tmp_path / "swollen.tar"
    archive.write_bytes(content + b"\0" * 1024)
    with pytest.raises(UsageError):
        source_archive.unpack(archive, progress)
    with pytest.raises(UsageError):
        source_archive.read(archive)
    assert [one for one in (private_cache / "archives").iterdir() if one.suffix != ".lock"] == []


@pytest.mark.parametrize(
    ("members", "why"),
    [
        ([member(f"d{n}", type=tarfile.DIRTYPE) for n in range(1501)], "more than 1500 files"),
        ([link(f"l{n}", f"l{n + 1}") for n in range(1001)], "more than 1000 links"),
        ([link(f"l{n}", f"l{n + 1}") for n in range(1000)], ""),
    ],
    ids=["folders", "links", "links to links"],
)
def test_a_tree_of_endless_members_is_given_up(members, why, tmp_path, monkeypatch):
    monkeypatch.setattr(source_archive, "_MOST", 1500)
    archive = tmp_path / "many.tar"
    with tarfile.open(archive, "w") as tar:
        for one in members:
            tar.addfile(one)
    if why:
        with pytest.raises(UsageError) as caught:
            source_archive.extract(archive, tmp_path / "out")
        assert why in caught.value.why
    else:
        with contextlib.suppress(UsageError):
            source_archive.extract(archive, tmp_path / "out")


@pytest.mark.parametrize("moment", ["1e30", "nan", "inf", "-1", "-1e30", "253402300800", "x"])
@pytest.mark.parametrize("number", ["9" * 5000, "\u0663", "-1", ""])
def test_what_an_archive_says_of_itself_may_be_nothing(moment, number, tmp_path):
    archive = tmp_path / "odd.tar"
    said = {"comment": COMMIT, "TURBOQUANT.build-number": number}
    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT, pax_headers=said) as tar:
        made = member("CMakeLists.txt", size=len(PROJECT), pax_headers={"mtime": moment})
        tar.addfile(made, io.BytesIO(PROJECT))
    assert source_archive.read(archive) == Known(COMMIT, None, "")
    source_archive.extract(archive, tmp_path / "out")


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, bytes])
def test_bent_archives_are_refused_or_taken_never_more(pack, tree, tmp_path):
    """Whatever bytes are bent: exit 2, or a tree."""
    plain = gzip.decompress(packed(tree).read_bytes())
    whole = pack(plain)
    dice = random.Random(pack.__name__)  # noqa: S311 -- of no secret
    for turn in range(120):
        bent = bytearray(whole)
        for _ in range(dice.randint(1, 4)):
            bent[dice.randrange(len(bent))] = dice.randrange(256)
        archive = tmp_path / f"bent-{turn}"
        archive.write_bytes(bent[: dice.choice([None, len(bent) // 2])])
        with contextlib.suppress(UsageError):
            source_archive.read(archive)
        with contextlib.suppress(UsageError):
            source_archive.extract(archive, tmp_path / f"out-{turn}")


def test_a_full_disk_is_no_fault_of_the_archive(tree, tmp_path, monkeypatch):
    archive = packed(tree)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(OSError, match="No space left"):
        source_archive.extract(archive, tmp_path / "out")


def cut(archive: Path) -> None:
    archive.write_bytes(archive.read_bytes()[:-40])


def other(archive: Path) -> None:
    archive.write_text("no tar")


@pytest.mark.parametrize("harm", [cut, other], ids=["cut short", "something else"])
def test_a_harmed_archive_is_refused_and_leaves_nothing(
    harm: Callable[[Path], None], tree, private_cache, progress
):
    archive = packed(tree)
    harm(archive)
    with pytest.raises(UsageError):
        source_archive.unpack(archive, progress)
    assert [one for one in (private_cache / "archives").iterdir() if one.suffix != ".lock"] == []


@pytest.mark.usefixtures("private_cache")
class TestBuild:
    def taken(self, tiny_pins: Path, ref: str | None, archive: Path, progress) -> source.Tree:
        with source.tree(pins.load(tiny_pins), "tiny", ref, archive, progress) as found:
            return found

    def test_a_build_takes_an_archive_at_its_word_and_says_so(self, tree, tiny_pins, progress):
        archive = packed(tree)
        found = self.taken(tiny_pins, None, archive, progress)
        assert (found.commit, found.build_number, found.created) == (COMMIT, 77, KNOWN.created)
        assert found.claimed
        sha256 = files.file_sha256(archive)
        assert found.origin == f"--source {archive} (sha256:{sha256})"

    def test_what_an_archive_says_is_not_said_of_another_commit(self, tree, tiny_pins, progress):
        found = self.taken(tiny_pins, "d" * 40, packed(tree), progress)
        assert (found.commit, found.build_number, found.created) == ("d" * 40, None, "")

    def test_an_archive_without_a_commit_needs_one(self, tree, tiny_pins, progress):
        with pytest.raises(UsageError) as caught:
            self.taken(tiny_pins, None, packed(tree, Known()), progress)
        assert caught.value.hint == "say it with --ref SHA"

    def test_an_archive_of_something_else_is_no_source(self, tree, tiny_pins, progress):
        (tree / "CMakeLists.txt").unlink()
        (tree / "tools" / "lists").unlink()
        with pytest.raises(UsageError) as caught:
            self.taken(tiny_pins, None, packed(tree), progress)
        assert "no CMakeLists.txt" in caught.value.why

    def test_an_archive_is_unpacked_once(self, tree, tiny_pins, progress):
        archive = packed(tree)
        first = self.taken(tiny_pins, None, archive, progress)
        assert self.taken(tiny_pins, None, archive, progress).path == first.path
        assert progress.steps == [f"unpack {archive.name}"]
