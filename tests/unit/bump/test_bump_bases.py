"""A base's digests follow their tags, and `all` moves what can be moved: on a local registry."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from builder.build import receipts as receipt
from builder.build import rendered
from builder.bump import all as bump_all
from builder.bump import bases as bump_bases
from builder.bump.fork import RefusedError, Request
from builder.bump.report import AllReport, NotMoved
from builder.common.errors import EngineError, RefNotFoundError, RemoteUnavailableError, UsageError
from builder.model.pins import BaseImage
from builder.pins import load as pins
from tests.conftest import ROOT, Repository, builder
from tests.support import registry_api
from tests.support.registry_api import Registry
from tests.unit.bump.test_bump import a_receipt, a_smoke, contents, failing, stages

pytestmark = pytest.mark.usefixtures("private_cache")

TAG = "me/debian:trixie-slim"


@pytest.fixture
def served() -> Iterator[Registry]:
    with registry_api.serve() as made:
        yield made


@pytest.fixture
def home(tmp_path: Path, tiny_pins: Path, repository: Repository, served: Registry) -> Repository:
    """A repository of pins.toml, its fork at the first commit, its base at a first image."""
    first, date = repository.git("log", "-1", "--format=%H %cI", "HEAD~2").split()
    digest = served.push(TAG, {"n": "1"})
    text = tiny_pins.read_text().replace(
        'unpinned = "tests say which commit"',
        f'commit = "{first}"\nbuild_number = 1\ndate = {date}',
    )
    image = f"{served.name(TAG)}@{digest}"
    text = re.sub(r'^(devel|runtime) = ".*"', rf'\1 = "{image}"', text, flags=re.M)
    made = Repository(tmp_path / "home")
    (made.path / "pins.toml").write_text(text)
    rendered.folder(made.path).mkdir(parents=True)
    assert builder("render", "--pins", made.path / "pins.toml").returncode == 0
    (made.path / ".gitignore").write_text("/build/\n")
    made.commit("pinned")
    return made


@pytest.fixture
def file(home: Repository) -> Path:
    return home.path / "pins.toml"


def bump_base(file: Path, progress, what=None, **words: object):
    return bump_bases.bump_base(file, "debian-trixie", Request(**words), what, progress)


# --- A base


def test_only_digests_change_and_what_is_rendered_from_them(file, home, served, progress):
    before = contents(home.path)
    old, new = served.tags[TAG], served.push(TAG, {"n": "2"})
    report = bump_base(file, progress)
    after = contents(home.path)
    wanted = {path: text.replace(old.encode(), new.encode()) for path, text in before.items()}
    assert after == wanted
    assert [(m.role, m.old, m.new) for m in report.moves] == [
        ("devel", old, new),
        ("runtime", old, new),
    ]
    assert (report.verdict, report.written) == ("unproven", True)
    assert builder("render", "--check", "--pins", file).returncode == 0


def test_a_base_at_its_tags_stays_and_says_so(file, home):
    result = builder("bump", "debian-trixie", "--pins", file)
    assert (result.returncode, home.git("status", "--short")) == (0, "")
    assert "nothing to change" in result.stdout


def test_an_image_of_both_roles_is_asked_for_once(file, served, progress):
    bump_base(file, progress)
    assert len(served.asked) == 1


def test_a_dry_run_of_a_base_prints_the_diff_and_writes_nothing(file, home, served):
    new = served.push(TAG, {"n": "2"})
    result = builder("bump", "debian-trixie", "--dry-run", "--pins", file)
    assert (result.returncode, home.git("status", "--short")) == (0, "")
    assert f'+devel = "{served.name(TAG)}@{new}"' in result.stdout
    assert "unproven" in result.stdout


@pytest.mark.parametrize("real", ["debian-trixie", "nvidia-cuda126", "nvidia-cuda128"])
def test_a_bump_of_the_real_file_changes_exactly_the_digests_that_moved(
    tmp_path, served, progress, real
):
    folder = tmp_path / "real"
    rendered.folder(folder).mkdir(parents=True)
    text = (ROOT / "pins.toml").read_text().replace("docker.io/", f"{served.host}/")
    (folder / "pins.toml").write_text(text)
    assert builder("render", "--pins", folder / "pins.toml").returncode == 0
    before = contents(folder)
    base = pins.load(folder / "pins.toml").bases[real]
    names = {reference.partition("@")[0] for reference in (base.devel, base.runtime)}
    for name in names:
        served.push(name.removeprefix(f"{served.host}/"), {})
    report = bump_bases.bump_base(folder / "pins.toml", real, Request(), None, progress)
    after = contents(folder)
    lines = zip(
        before[Path("pins.toml")].decode().splitlines(),
        after[Path("pins.toml")].decode().splitlines(),
        strict=True,
    )
    changed = [(old, new) for old, new in lines if old != new]
    assert changed == [
        (f'{m.role} = "{m.image}@{m.old}"', f'{m.role} = "{m.image}@{m.new}"') for m in report.moves
    ]
    assert len(changed) == 2
    variants = pins.load(folder / "pins.toml").variants
    own = {f"{name}.Dockerfile" for name, variant in variants.items() if variant.base == real}
    assert {path.name for path in after if after[path] != before[path]} == {"pins.toml", *own}


@pytest.mark.parametrize(
    ("refusal", "error"), [((500, {}), RemoteUnavailableError), ((404, {}), RefNotFoundError)]
)
def test_a_registry_that_does_not_tell_changes_nothing(
    file, home, served, progress, refusal, error
):
    served.refusal = refusal
    with pytest.raises(error):
        bump_base(file, progress)
    assert home.git("status", "--short") == ""


def test_a_base_without_images_by_digest_has_nothing_to_move():
    result = builder("bump", "debian-cuda124", "--pins", ROOT / "pins.toml")
    assert (result.returncode, "has no image by digest" in result.stderr) == (2, True)


def on(*digests: tuple[str, str]):
    """A build that took these images, by role and digest."""
    images = [BaseImage(role, f"x@{digest}", digest, "hub") for role, digest in digests]
    return lambda *_: a_receipt("c" * 40, bases=images)


def test_a_base_is_proven_by_a_build_on_it_at_the_pin(file, home, served, progress):
    new = served.push(TAG, {"n": "2"})
    asked = []

    def build(candidate, order, *_):
        asked.append((order.variant, order.ref, order.tag, candidate.bases["debian-trixie"].devel))
        return on(("devel", new), ("runtime", new))()

    report = bump_base(file, progress, replace(stages(), build=build), pr_body=home.path / "pr.md")
    assert asked == [("tiny", None, "turboquant:tiny-debian-trixie", f"{served.name(TAG)}@{new}")]
    assert (report.verdict, report.proof.variant) == ("proven", "tiny")
    body = (home.path / "pr.md").read_text()
    assert "**Proven** on `tiny`" in body
    assert f"`{new}`" in body


def test_the_receipt_before_is_the_one_on_the_old_base(file, home, served, progress):
    new = served.push(TAG, {"n": "2"})
    pin = pins.load(file).forks["tiny"].commit
    receipt.write(a_receipt(pin, size_bytes=140_000_000), home.path)

    def build(*_):
        images = [BaseImage(role, "x", new, "hub") for role in ("devel", "runtime")]
        made = a_receipt(pin, bases=images, created="2026-11-21T00:00:00.000000Z")
        receipt.write(made, home.path)
        return made

    bump_base(file, progress, replace(stages(), build=build), pr_body=home.path / "pr.md")
    assert "| image | 140 MB | 150 MB |" in (home.path / "pr.md").read_text()


def test_a_build_that_fell_back_to_debian_packages_proves_nothing(file, home, served, progress):
    new = served.push(TAG, {"n": "2"})
    what = stages(build=on(("devel", new), ("runtime", "sha256:other")))
    with pytest.raises(RefusedError, match="not built on the new runtime image"):
        bump_base(file, progress, what)
    assert home.git("status", "--short") == ""


def test_a_smoke_that_fails_on_the_new_base_changes_nothing(file, home, served, progress):
    new = served.push(TAG, {"n": "2"})
    what = stages(smoke="fail", build=on(("devel", new), ("runtime", new)))
    with pytest.raises(RefusedError, match=r"^smoke failed: tiny at ccccccccc;"):
        bump_base(file, progress, what)
    assert home.git("status", "--short") == ""


@pytest.mark.parametrize("words", [["--to", "x"], ["--force"]])
@pytest.mark.parametrize("name", ["debian-trixie", "all"])
def test_what_is_for_one_fork_is_refused_for_a_base_and_for_all(file, name, words):
    assert builder("bump", name, *words, "--pins", file).returncode == 2


def test_an_unknown_name_is_refused_with_the_nearest_base(file):
    result = builder("bump", "debian-trixi", "--pins", file)
    assert (result.returncode, "did you mean 'debian-trixie'?" in result.stderr) == (2, True)


# --- All


def test_all_moves_every_pin(file, home, repository, served):
    new = served.push(TAG, {"n": "2"})
    result = builder("bump", "all", "--json", "--pr-body", home.path / "pr.md", "--pins", file)
    told = json.loads(result.stdout)
    assert (result.returncode, told["exit_code"], told["not_moved"]) == (0, 0, [])
    assert [one["verdict"] for one in told["moves"]] == ["unproven", "unproven"]
    after = pins.load(file)
    assert after.forks["tiny"].commit == repository.git("rev-parse", "HEAD")
    assert after.bases["debian-trixie"].devel == f"{served.name(TAG)}@{new}"
    assert builder("render", "--check", "--pins", file).returncode == 0
    body = (home.path / "pr.md").read_text()
    assert body.index("### tiny: ") < body.index("### debian-trixie: ")
    assert "**docs** (2 commits)" in body


@pytest.mark.parametrize("gone", ["fork", "registry"])
def test_one_that_does_not_answer_stays_and_the_others_move(
    file, repository, served, progress, gone
):
    new = served.push(TAG, {"n": "2"})
    before, head = pins.load(file), repository.git("rev-parse", "HEAD")
    if gone == "fork":
        repository.path.rename(repository.path.with_name("gone"))
    else:
        served.refusal = (503, {})
    report = bump_all.bump_all(file, Request("all"), None, progress)
    after = pins.load(file)
    moved_fork = after.forks["tiny"].commit == head
    moved_base = after.bases["debian-trixie"].devel == f"{served.name(TAG)}@{new}"
    assert (moved_fork, moved_base) == (gone != "fork", gone != "registry")
    assert (after.forks == before.forks) == (gone == "fork")
    assert (after.bases == before.bases) == (gone == "registry")
    assert (report.exit_code, len(report.not_moved)) == (6, 1)
    assert "is not moved" in progress.warnings[-1]


def test_all_with_a_fork_whose_smoke_fails_is_1_and_leaves_it(file, served, progress):
    new = served.push(TAG, {"n": "2"})
    before = pins.load(file).forks
    images = [BaseImage(role, "x", new, "hub") for role in ("devel", "runtime")]
    what = replace(
        stages(build=lambda _, order, *__: a_receipt(order.ref or "c" * 40, bases=images)),
        smoke=lambda _, built, *__: a_smoke("pass" if built.commit == "c" * 40 else "fail"),
    )
    report = bump_all.bump_all(file, Request("all"), what, progress)
    assert (report.exit_code, pins.load(file).forks) == (1, before)
    assert [(one.base, one.verdict) for one in report.moves] == [("debian-trixie", "proven")]


def test_an_engine_that_fails_ends_all_at_once(file, home, progress):
    with pytest.raises(EngineError):
        bump_all.bump_all(file, Request("all"), stages(build=failing(EngineError("no"))), progress)
    assert home.git("status", "--short") == ""


def test_a_summary_without_a_folder_is_refused_before_anything_moves(file, home, served, progress):
    served.push(TAG, {"n": "2"})
    with pytest.raises(UsageError, match="no such folder"):
        bump_all.bump_all(file, Request("all", pr_body=home.path / "no" / "pr.md"), None, progress)
    assert home.git("status", "--short") == ""


@pytest.mark.parametrize(("codes", "worst"), [([], 0), ([1, 6], 6), ([7, 1], 7), ([1], 1)])
def test_the_exit_code_of_all_is_6_where_one_did_not_answer(codes, worst):
    failed = [NotMoved("x", "", "", "", code) for code in codes]
    assert AllReport([], failed).exit_code == worst


def test_the_names_of_all_are_the_pinned_forks_and_the_bases_by_digest(real_pins):
    assert bump_all.names(real_pins) == [
        *("spiritbuun", "thetom", "madreag", "mainline"),
        *("debian-trixie", "nvidia-cuda126", "nvidia-cuda128"),
    ]
