"""What pins.toml names beside forks, against a local registry and a local package index."""

import datetime
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from builder.freshness import look as freshness
from builder.freshness import parts as freshness_parts
from builder.freshness.end_of_life import end_of_life
from builder.freshness.report import PartReport, Report, badge, part_rows, to_json, to_markdown
from builder.git.github import Github
from builder.model.pins import Pins, Source
from builder.pins import load as pins
from tests.conftest import Recorder, Repository, builder
from tests.support import registry_api
from tests.support.registry_api import Registry

pytestmark = pytest.mark.usefixtures("private_cache")

NOWHERE = Github(api="http://127.0.0.1:1")
REVISION = "org.opencontainers.image.revision"
SOURCE = Source("tiny-package", "1.0", "a" * 64, "tree", "abcdef123")


@pytest.fixture
def served() -> Iterator[Registry]:
    with registry_api.serve() as made:
        yield made


@pytest.fixture
def everything(tiny_pins: Path, repository: Repository) -> Pins:
    """The small pins, pinned to the head, with nothing that is asked of anybody else."""
    head = repository.git("rev-parse", "HEAD")
    read = pins.load(tiny_pins)
    pinned = replace(
        read.forks["tiny"], unpinned=None, commit=head, date=datetime.datetime.now(datetime.UTC)
    )
    base = replace(read.bases["debian-trixie"], devel=None, runtime=None)
    return replace(read, forks={"tiny": pinned}, bases={"debian-trixie": base})


def look(everything: Pins) -> Report:
    return freshness.look(everything, list(everything.forks), NOWHERE, Recorder(), whole=True)


def rules(report: PartReport) -> list[str]:
    return [reason.rule for reason in report.reasons]


# --- Bases


def based(everything: Pins, devel: str, runtime: str) -> Pins:
    base = replace(everything.bases["debian-trixie"], devel=devel, runtime=runtime)
    return replace(everything, bases={"debian-trixie": base})


def one_base(everything: Pins, reference: str) -> PartReport:
    (found,) = look(based(everything, reference, reference)).parts
    return found


def test_a_base_whose_tag_has_the_pinned_digest_is_fresh(everything, served):
    digest = served.push("me/debian:trixie-slim", {})
    found = one_base(everything, f"{served.name('me/debian:trixie-slim')}@{digest}")
    assert (found.verdict, found.found, found.end_of_life) == ("fresh", digest, "2028-08-09")


def test_an_image_of_several_places_is_asked_for_once(everything, served):
    digest = served.push("me/debian:trixie-slim", {})
    found = one_base(everything, f"{served.name('me/debian:trixie-slim')}@{digest}")
    assert found.places == ("bases.debian-trixie.devel", "bases.debian-trixie.runtime")
    assert len(served.asked) == 1


@pytest.mark.parametrize(("dropped", "words"), [(False, "still given out"), (True, "no more")])
def test_a_tag_that_moved_is_stale_and_says_whether_the_old_image_is_there(
    everything, served, dropped, words
):
    old = served.push("me/debian:trixie-slim", {"n": "1"})
    new = served.push("me/debian:trixie-slim", {"n": "2"})
    if dropped:
        served.drop(old)
    found = one_base(everything, f"{served.name('me/debian:trixie-slim')}@{old}")
    assert (found.verdict, rules(found), found.found) == ("stale", ["digest"], new)
    assert words in found.reasons[0].text


def test_a_tag_that_is_gone_is_stale(everything, served):
    found = one_base(everything, f"{served.name('me/debian:trixie-slim')}@sha256:{'0' * 64}")
    assert (found.verdict, rules(found)) == ("stale", ["gone"])


def test_a_registry_that_does_not_answer_is_never_fresh_and_hides_nothing(everything, served):
    digest = served.push("me/debian:trixie-slim", {})
    good = f"{served.name('me/debian:trixie-slim')}@{digest}"
    report = look(based(everything, f"127.0.0.1:1/debian:trixie@{digest}", good))
    assert [one.verdict for one in report.parts] == ["unknown", "fresh"]
    assert ([one.verdict for one in report.forks], report.exit_code) == (["fresh"], 6)


def test_a_base_that_is_only_bootstrapped_has_no_digest_to_compare(everything):
    report = look(everything)
    assert [one.verdict for one in report.parts] == ["unpinned", "unpinned"]
    assert "made from Debian packages" in part_rows(report)[0][-1]
    assert report.exit_code == 0


@pytest.mark.parametrize(
    ("image", "end"),
    [
        ("docker.io/library/debian:trixie-slim@sha256:0", datetime.date(2028, 8, 9)),
        ("debian:bookworm", datetime.date(2026, 7, 11)),
        ("docker.io/nvidia/cuda:12.6.3-devel-ubuntu22.04", datetime.date(2027, 6, 1)),
        ("ubuntu:24.04", datetime.date(2029, 5, 31)),
        ("example.org/trixie/debian-like:1", None),
        ("alpine:3", None),
    ],
)
def test_the_end_of_a_distributions_life_is_known_by_the_tag(image, end):
    assert end_of_life(image) == end


@pytest.mark.parametrize(
    ("days", "expected"), [(90, ["end_of_life"]), (91, []), (-5, ["end_of_life"])]
)
def test_a_base_near_its_end_is_stale(everything, served, monkeypatch, days, expected):
    end = datetime.datetime.now(datetime.UTC).date() + datetime.timedelta(days=days)
    monkeypatch.setattr(freshness_parts, "end_of_life", lambda _: end)
    digest = served.push("me/debian:trixie", {})
    found = one_base(everything, f"{served.name('me/debian:trixie')}@{digest}")
    assert rules(found) == expected


def test_a_base_of_an_unknown_distribution_says_so(everything, served):
    digest = served.push("me/alpine:3", {})
    found = one_base(everything, f"{served.name('me/alpine:3')}@{digest}")
    assert (found.verdict, found.notes) == ("fresh", ("the end of its life is not known here",))


# --- Sources


class Index:
    """A simple index of one project, in either of the two formats of an index."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def html(self, *links: str) -> None:
        (self.folder / "index.html").write_text("".join(links))

    def json(self, *files: dict[str, object]) -> None:
        page = {"meta": {"api-version": "1.1"}, "name": "tiny-package", "files": list(files)}
        (self.folder / "index.html").write_text(json.dumps(page))
        (self.folder / "is-json").touch()


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    folder = tmp_path / "index" / "simple" / "tiny-package"
    folder.mkdir(parents=True)

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

        def guess_type(self, path: object) -> str:
            if (folder / "is-json").exists():
                return "application/vnd.pypi.simple.v1+json"
            return super().guess_type(path)

    server = ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Handler, directory=str(tmp_path / "index"))
    )
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/simple")
    yield Index(folder)
    server.shutdown()
    server.server_close()


def link(version: str, attributes: str = "", digest: str = "a" * 64) -> str:
    name = f"tiny_package-{version}.tar.gz"
    return f'<a href="{name}#sha256={digest}" {attributes}>{name}</a>'


def file(version: str, **more: object) -> dict[str, object]:
    name = f"tiny_package-{version}.tar.gz"
    return {"filename": name, "url": name, "hashes": {"sha256": "a" * 64}, **more}


def one_source(everything: Pins) -> PartReport:
    bases = {name: replace(base, bootstrap=None) for name, base in everything.bases.items()}
    parts = look(replace(everything, bases=bases, sources={"tiny": SOURCE})).parts
    return next(one for one in parts if one.kind == "source")


def test_a_source_that_is_the_newest_is_fresh(everything, index):
    index.html(link("0.9"), link("1.0"))
    found = one_source(everything)
    assert (found.verdict, found.found, found.places) == ("fresh", "1.0", ("sources.tiny",))


def test_a_newer_version_makes_a_source_stale(everything, index):
    index.html(link("1.0"), link("1.9"), link("1.10"))
    found = one_source(everything)
    assert (found.verdict, rules(found), found.found) == ("stale", ["newer_version"], "1.10")


@pytest.mark.parametrize(
    "other",
    [link("1.1rc1"), link("2.0", 'data-yanked="broken"'), link("2.0").replace(".tar.gz", ".x")],
)
def test_a_prerelease_a_withdrawn_one_and_another_kind_of_file_are_no_newer_version(
    everything, index, other
):
    index.html(link("1.0"), other)
    assert one_source(everything).verdict == "fresh"


def test_a_yanked_source_is_stale_with_the_reason(everything, index):
    index.html(link("1.0", 'data-yanked="broken build"'))
    found = one_source(everything)
    assert (rules(found), found.reasons[0].text) == (
        ["yanked"],
        "1.0 was withdrawn: broken build",
    )


def test_an_index_that_speaks_json_says_the_same(everything, index):
    index.json(file("1.0", yanked="broken build"), file("1.1"))
    assert rules(one_source(everything)) == ["yanked", "newer_version"]


def test_a_source_whose_file_is_another_now_is_stale(everything, index):
    index.html(link("1.0", digest="b" * 64))
    assert rules(one_source(everything)) == ["other_file"]


def test_a_source_that_is_gone_from_the_index_is_stale(everything, index):
    index.html(link("0.9"))
    assert rules(one_source(everything)) == ["gone"]


def test_an_index_that_does_not_answer_is_unknown(everything, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple")
    found = one_source(everything)
    assert (found.verdict, found.failure.what) == ("unknown", "the package index does not answer")


# --- Published images


def published(everything: Pins, repository: str) -> Pins:
    release = replace(everything.policy.release, repository=repository)
    return replace(everything, policy=replace(everything.policy, release=release))


def one_image(everything: Pins, served: Registry) -> PartReport:
    parts = look(published(everything, served.name("me/llama"))).parts
    return next(one for one in parts if one.kind == "image")


@pytest.mark.parametrize("index", [False, True])
def test_a_published_image_of_the_pinned_commit_is_fresh(everything, served, index):
    commit = everything.forks["tiny"].commit
    served.push("me/llama:tiny", {REVISION: commit}, index=index)
    found = one_image(everything, served)
    assert (found.verdict, found.found, found.places) == ("fresh", commit, ("variants.tiny",))


def test_a_published_image_of_another_commit_is_stale(everything, served):
    served.push("me/llama:tiny", {REVISION: "b" * 40})
    found = one_image(everything, served)
    assert (found.verdict, rules(found), found.found) == ("stale", ["other_commit"], "b" * 40)


def test_a_published_image_that_names_no_commit_is_stale(everything, served):
    served.push("me/llama:tiny", {})
    assert rules(one_image(everything, served)) == ["other_commit"]


def test_a_variant_of_a_source_is_compared_with_the_commit_that_it_claims(
    everything, served, index
):
    index.html(link("1.0"))
    variants = {"tiny": replace(everything.variants["tiny"], source="tiny")}
    served.push("me/llama:tiny", {REVISION: SOURCE.upstream})
    found = one_image(replace(everything, sources={"tiny": SOURCE}, variants=variants), served)
    assert (found.verdict, found.pinned) == ("fresh", SOURCE.upstream)


def test_the_default_variant_has_to_be_published_and_others_may_be(everything, served):
    both = dict.fromkeys(("tiny", "rare"), everything.variants["tiny"])
    parts = look(published(replace(everything, variants=both), served.name("me/llama"))).parts
    found = {one.name.rpartition(":")[2]: one for one in parts if one.kind == "image"}
    assert (found["tiny"].verdict, rules(found["tiny"])) == ("stale", ["not_published"])
    assert found["rare"].verdict == "unpublished"


def test_a_private_repository_is_unknown(everything, served):
    served.refusal = (403, {})
    assert one_image(everything, served).verdict == "unknown"


def test_an_unpinned_forks_image_has_no_commit_to_compare(everything, served):
    fork = replace(everything.forks["tiny"], commit=None, date=None, unpinned="nobody knows")
    found = one_image(replace(everything, forks={"tiny": fork}), served)
    assert (found.verdict, served.asked) == ("unpinned", [])


def test_without_a_repository_nothing_is_asked_and_the_report_says_so(everything):
    report = look(everything)
    assert report.not_asked == ("published images: pins.toml has no policy.release.repository",)
    assert "Not asked: published images" in to_markdown(report)


# --- All of it


def test_named_forks_ask_nobody_else(everything, served):
    digest = served.push("me/debian:trixie", {})
    reference = f"{served.name('me/debian:trixie')}@{digest}"
    everything = based(everything, reference, reference)
    report = freshness.look(everything, ["tiny"], NOWHERE, Recorder())
    assert (report.parts, report.not_asked, served.asked) == ((), (), [])


def test_parts_are_in_every_format(everything, served):
    old = served.push("me/debian:trixie", {"n": "1"})
    served.push("me/debian:trixie", {"n": "2"})
    reference = f"{served.name('me/debian:trixie')}@{old}"
    report = look(based(everything, reference, reference))
    ((name, verdict, was, now, why),) = part_rows(report)
    assert (name, verdict) == ("base debian:trixie", "stale")
    assert (was, now.startswith("sha256:"), len(now)) == (old[:19], True, 19)
    assert why.startswith("digest: the tag is another image now")
    page = json.loads(to_json(report))
    assert (page["schema"], page["exit_code"], page["parts"][0]["pinned"]) == (1, 1, old)
    assert "| base " in to_markdown(report)
    assert badge(report)["message"] == "1 stale"
    assert report.headline == "STALE  1 fresh, 1 stale"


def test_the_command_shows_the_parts(tiny_pins, served):
    digest = served.push("me/debian:trixie", {})
    text = tiny_pins.read_text()
    for line in [one for one in text.splitlines() if one.startswith(('devel = "', 'runtime = "'))]:
        role = line.partition(" ")[0]
        text = text.replace(line, f'{role} = "{served.name("me/debian:trixie")}@{digest}"')
    tiny_pins.write_text(text)
    result = builder("freshness", "--all", "--pins", tiny_pins)
    assert (result.returncode, "FRESH  1 fresh, 1 unpinned" in result.stdout) == (0, True)
    assert "not asked: published images" in result.stderr
