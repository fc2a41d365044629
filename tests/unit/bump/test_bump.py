"""A pin is moved with the files beside it, or nothing is: on real git repositories."""

import json
import tomllib
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from builder.audit.run import AuditReport
from builder.build import receipts as receipt
from builder.build import rendered
from builder.bump import fork as bump
from builder.bump.fork import RefusedError, Request, Stages
from builder.common.errors import (
    BuildFailedError,
    EngineError,
    PinsError,
    RefNotFoundError,
    RemoteUnavailableError,
    UsageError,
)
from builder.model.finding import Finding
from builder.model.pins import CacheStats, Kv, Profile, Receipt
from builder.pins import load as pins
from builder.smoke import history as kept_smoke
from builder.smoke.probes.kv import KvVerdict
from builder.smoke.report import SmokeReport
from tests.conftest import ROOT, Recorder, Repository, builder, start_builder

pytestmark = pytest.mark.usefixtures("private_cache")


@pytest.fixture
def home(tmp_path: Path, tiny_pins: Path, repository: Repository) -> Repository:
    """A repository that holds pins.toml, pinned to the first commit, and a rendered file."""
    made = Repository(tmp_path / "home")
    tiny_pins.rename(made.path / "pins.toml")
    (made.path / "dockerfiles" / "rendered").mkdir(parents=True)
    first = repository.git("rev-parse", "HEAD~2")
    bump.bump(made.path / "pins.toml", Request(to=first), None, Recorder())
    (made.path / ".gitignore").write_text("/build/\n")
    made.commit("pinned to the first commit")
    return made


@pytest.fixture
def file(home: Repository) -> Path:
    return home.path / "pins.toml"


@pytest.fixture
def real(tmp_path: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the real pins.toml and its rendered files; every fork's URL means `repository`."""
    repository.git("branch", "feature/turboquant-kv-cache")
    repository.git("branch", "session/23-max-performance")
    folder = tmp_path / "real"
    rendered.folder(folder).mkdir(parents=True)
    for path in rendered.folder(ROOT).iterdir():
        (rendered.folder(folder) / path.name).write_bytes(path.read_bytes())
    (folder / "pins.toml").write_bytes((ROOT / "pins.toml").read_bytes())
    urls = {f.url for f in pins.load(folder / "pins.toml").forks.values() if f.url}
    lines = [f"\tinsteadOf = {url}" for url in urls]
    config = tmp_path / "gitconfig"
    config.write_text("\n".join([f'[url "{repository.url}"]', *lines, ""]))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    return folder / "pins.toml"


def contents(folder: Path) -> dict[Path, bytes]:
    files = [p for p in folder.rglob("*") if p.is_file() and ".git" not in p.parts]
    return {p.relative_to(folder): p.read_bytes() for p in files}


def pinned(file: Path) -> str | None:
    return pins.load(file).forks["tiny"].commit


# --- What a move writes ---------------------------------------------------------------------------


@pytest.mark.parametrize("fork", ["spiritbuun", "thetom", "madreag", "mainline"])
def test_a_bump_of_the_real_file_changes_three_lines_and_the_forks_dockerfiles(
    real, repository, fork, progress
):
    before = contents(real.parent)
    head = repository.git("rev-parse", "HEAD")
    report = bump.bump(real, Request(fork), None, progress)
    after = contents(real.parent)
    variants = tomllib.loads(real.read_text())["variants"]
    own = {f"{name}.Dockerfile" for name, variant in variants.items() if variant["fork"] == fork}
    changed = {path.name for path in after if after[path] != before[path]}
    assert (after.keys(), changed) == (before.keys(), {"pins.toml", *own})
    old, new = (one[Path("pins.toml")].decode().splitlines() for one in (before, after))
    date = datetime.fromisoformat(repository.git("log", "-1", "--format=%cI")).astimezone(UTC)
    assert [(a, b) for a, b in zip(old, new, strict=True) if a != b] == [
        (f'commit = "{report.old.commit}"', f'commit = "{head}"'),
        (f"build_number = {report.old.build_number}", "build_number = 3"),
        (f"date = {report.old.date:%Y-%m-%dT%H:%M:%SZ}", f"date = {date:%Y-%m-%dT%H:%M:%SZ}"),
    ]


def test_what_render_would_write_is_written_already(real):
    assert builder("bump", "spiritbuun", "--pins", real).returncode == 0
    assert builder("render", "--check", "--pins", real).returncode == 0


def test_the_default_fork_is_the_default_variants(real, progress):
    assert bump.bump(real, Request(), None, progress).fork == "spiritbuun"


def test_a_pin_moves_to_the_branch_or_to_what_is_asked_for(file, repository, progress):
    bump.bump(file, Request(to=repository.git("rev-parse", "HEAD~1")[:9]), None, progress)
    assert pinned(file) == repository.git("rev-parse", "HEAD~1")
    bump.bump(file, Request(), None, progress)
    assert pinned(file) == repository.git("rev-parse", "HEAD")


@pytest.mark.parametrize("to", [None, "master"])
@pytest.mark.parametrize("tagged", ["HEAD~1", "side"])
def test_a_tag_with_the_branchs_name_is_not_the_branch(file, repository, progress, to, tagged):
    head = repository.git("rev-parse", "HEAD")
    repository.git("checkout", "--quiet", "-b", "side")
    repository.commit("on another branch")
    repository.git("checkout", "--quiet", "master")
    repository.git("tag", "master", tagged)
    bump.bump(file, Request(to=to), None, progress)
    assert pinned(file) == head


def test_a_tag_is_not_the_branch_that_a_pin_follows(file, progress):
    file.write_text(file.read_text().replace('branch = "master"', 'branch = "v1"'))
    with pytest.raises(RefNotFoundError, match="has no branch 'v1'"):
        bump.bump(file, Request(), None, progress)


def test_a_pin_that_is_there_already_says_so_and_writes_nothing(file, home, repository):
    head = repository.git("rev-parse", "HEAD~2")
    result = builder("bump", "--to", head, "--pr-body", home.path / "pr.md", "--pins", file)
    assert (result.returncode, home.git("status", "--short")) == (0, "")
    assert f"tiny stays at {head[:9]}" in result.stdout
    assert "nothing to change" in result.stdout


def test_a_wrong_build_number_is_put_right(file, repository, progress):
    right = file.read_text()
    file.write_text(right.replace("build_number = 1", "build_number = 77"))
    bump.bump(file, Request(to=repository.git("rev-parse", "HEAD~2")), None, progress)
    assert file.read_text() == right


def test_no_rendered_files_appear_where_there_are_none(file, home, progress):
    home.git("rm", "-rq", "dockerfiles")
    bump.bump(file, Request(), None, progress)
    assert not (home.path / "dockerfiles").exists()


def test_a_dry_run_prints_the_diff_and_writes_nothing(file, home, repository):
    result = builder("bump", "--dry-run", "--pins", file)
    head = repository.git("rev-parse", "HEAD")
    assert (result.returncode, home.git("status", "--short")) == (0, "")
    assert f'+commit = "{head}"' in result.stdout
    assert f"+ARG COMMIT={head}" in result.stdout
    (home.path / "patch").write_text(result.stdout[: result.stdout.index("\ntiny:") + 1])
    home.git("apply", "patch")
    assert pinned(file) == head


def test_a_look_up_brings_no_files(file, repository, progress, private_cache):
    repository.git("config", "uploadpack.allowFilter", "true")
    bump.bump(file, Request(), None, progress)
    # Nor for a pin that no branch holds.
    repository.git("commit", "--quiet", "--amend", "--message", "instead")
    for cached in private_cache.rglob("history"):
        cached.rename(cached.with_name("before"))
    bump.bump(file, Request(), None, progress)
    (history,) = private_cache.rglob("history")
    made = object.__new__(Repository)
    made.path = history
    kinds = made.git("cat-file", "--batch-all-objects", "--batch-check=%(objecttype)")
    assert set(kinds.split()) == {"commit"}


# --- What is refused ------------------------------------------------------------------------------


def test_backwards_is_refused_unless_forced(file, home, repository):
    bump.bump(file, Request(), None, Recorder())
    home.commit("moved")
    first = repository.git("rev-parse", "HEAD~2")
    refused = builder("bump", "--to", first, "--pins", file)
    assert (refused.returncode, home.git("status", "--short")) == (1, "")
    assert "backwards" in refused.stderr
    assert "--force" in refused.stderr
    forced = builder("bump", "--to", first, "--force", "--json", "--pins", file)
    told = json.loads(forced.stdout)
    assert (forced.returncode, pinned(file)) == (0, first)
    assert "backwards" in told["overruled"][0]
    assert [one["subject"] for one in told["left_out"]] == ["third", "second"]


@pytest.mark.parametrize("name", ["branch", "tag", "dangling"])
def test_what_is_not_on_the_branch_is_refused_unless_forced(file, home, repository, progress, name):
    repository.git("checkout", "--quiet", "-b", "other")
    stray = repository.commit("stray")
    repository.git("checkout", "--quiet", "master")
    if name != "branch":
        repository.git("branch", "--quiet", "-D", "other")
    if name == "tag":
        repository.git("tag", "loose", stray)
    with pytest.raises(RefusedError, match="not on the branch master"):
        bump.bump(file, Request(to=stray), None, progress)
    assert home.git("status", "--short") == ""
    bump.bump(file, Request(to=stray, force=True), None, progress)
    assert (pinned(file), pins.load(file).forks["tiny"].build_number) == (stray, 4)


def test_a_commit_that_is_known_to_be_broken_is_refused_unless_forced(
    file, home, repository, progress
):
    broken = repository.git("rev-parse", "HEAD~1")
    with file.open("a") as text:
        text.write(f'\n[forks.tiny.broken]\n{broken} = "does not compile; fixed by v1"\n')
    home.commit("known")
    with pytest.raises(RefusedError, match="broken: does not compile; fixed by v1"):
        bump.bump(file, Request(to=broken), None, progress)
    assert home.git("status", "--short") == ""
    bump.bump(file, Request(to=broken, force=True), None, progress)
    assert pinned(file) == broken


def test_a_force_push_that_dropped_the_pin_is_told_with_what_it_lost(
    file, repository, progress: Recorder
):
    bump.bump(file, Request(), None, progress)
    lost = pinned(file)
    repository.git("reset", "--quiet", "--hard", "HEAD~1")
    repository.commit("instead")
    report = bump.bump(file, Request(), None, progress)
    assert [one.commit for one in report.left_out] == [lost]
    assert [one.subject for one in report.commits] == ["instead"]
    assert "master was rewritten" in progress.warnings[-1]


def test_a_branch_that_was_pushed_back_is_backwards(file, repository, progress):
    bump.bump(file, Request(), None, progress)
    repository.git("reset", "--quiet", "--hard", "HEAD~1")
    with pytest.raises(RefusedError, match="backwards"):
        bump.bump(file, Request(), None, progress)


def test_a_pin_that_the_remote_no_longer_has_is_compared_by_date(real, progress: Recorder):
    # The pins of the real file are in no local repository. First one that is newer than all.
    text = real.read_text()
    real.write_text(text.replace("2026-05-18T15:26:29Z", "2099-05-18T15:26:29Z"))
    with pytest.raises(RefusedError, match="older than the pin 1c4788192"):
        bump.bump(real, Request(), None, progress)
    assert "no longer has the pin 1c4788192" in progress.warnings[-1]
    real.write_text(text)
    assert bump.bump(real, Request(), None, progress).written


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ({"to": "mastre"}, RefNotFoundError),
        ({"to": "d" * 40}, RefNotFoundError),
        ({"fork": "tinyy"}, UsageError),
    ],
)
def test_what_cannot_be_found_changes_nothing(file, home, progress, words, error):
    with pytest.raises(error):
        bump.bump(file, Request(**words), None, progress)
    assert home.git("status", "--short") == ""


def test_a_remote_that_does_not_answer_changes_nothing(file, home, repository, progress):
    repository.path.rename(repository.path.with_name("gone"))
    with pytest.raises(RemoteUnavailableError):
        bump.bump(file, Request(), None, progress)
    assert home.git("status", "--short") == ""


def test_an_unpinned_fork_is_pinned_only_to_what_is_named(real, repository, progress):
    with pytest.raises(UsageError, match="turbo-tan is not pinned"):
        bump.bump(real, Request("turbo-tan"), None, progress)
    report = bump.bump(real, Request("turbo-tan", to="v1"), None, progress)
    fork = pins.load(real).forks["turbo-tan"]
    assert (fork.commit, fork.unpinned) == (repository.git("rev-parse", "v1"), None)
    assert (report.old, report.verdict) == (None, "unproven")


def test_a_fork_without_url_is_refused(real, progress):
    with pytest.raises(UsageError, match="aaryan-kapoor has no url"):
        bump.bump(real, Request("aaryan-kapoor", to="x"), None, progress)


# --- All or nothing -------------------------------------------------------------------------------


def test_a_file_that_cannot_be_replaced_leaves_all_others_as_they_were(real):
    # Of spiritbuun's five Dockerfiles the second; those before it have been replaced by then.
    way = rendered.folder(real.parent) / "spiritbuun-cuda12-sm86.Dockerfile"
    way.unlink()
    way.mkdir()
    before = contents(real.parent)
    result = builder("bump", "--pins", real)
    assert result.returncode == 2
    assert f"{way} cannot be written; nothing was changed" in result.stderr
    assert contents(real.parent) == before


def test_a_summary_that_cannot_be_written_leaves_the_pin_where_it_was(file, home):
    result = builder("bump", "--pr-body", home.path / "nowhere" / "pr.md", "--pins", file)
    assert (result.returncode, home.git("status", "--short")) == (2, "")


def test_a_read_only_file_is_left_alone(file, home, progress):
    file.chmod(0o444)
    with pytest.raises(PinsError, match="read-only"):
        bump.bump(file, Request(), None, progress)
    assert home.git("status", "--short") == ""


def test_a_link_to_the_file_stays_a_link(file, tmp_path, repository, progress):
    link = tmp_path / "link.toml"
    link.symlink_to(file)
    bump.bump(link, Request(), None, progress)
    assert link.is_symlink()
    assert pinned(file) == repository.git("rev-parse", "HEAD")


def test_two_bumps_at_once_wait_for_each_other_and_both_are_in_the_file(real, progress):
    with bump.alone(real.resolve(), progress):
        both = [start_builder("bump", fork, "--pins", real) for fork in ("spiritbuun", "thetom")]
        for one in both:
            assert "wait for another bump" in one.stderr.readline()
    for one in both:
        one.communicate()
        assert one.returncode == 0
    lines = zip(
        (ROOT / "pins.toml").read_text().splitlines(), real.read_text().splitlines(), strict=True
    )
    assert sum(old != new for old, new in lines) == 6
    assert builder("render", "--check", "--pins", real).returncode == 0


# --- Stages ---------------------------------------------------------------------------------------


def a_receipt(commit: str, **changes: object) -> Receipt:
    made = Receipt(
        variant="tiny",
        fork="tiny",
        ref=commit,
        commit=commit,
        commit_claimed=False,
        source="a test",
        build_number=3,
        image="turboquant:tiny-candidate",
        image_id="sha256:1234",
        size_bytes=150_000_000,
        compressed_bytes=60_000_000,
        bases=[],
        dockerfile_sha256="0" * 64,
        created="2026-11-20T00:00:00.000000Z",
        duration_s=90.0,
        stages=[],
        ccache=None,
        log="/logs/build.log",
    )
    return replace(made, **changes)


def an_audit(status: str = "pass") -> AuditReport:
    findings = [Finding("size", status, "at most 140 MB", "150 MB")]
    return AuditReport("image", "sha256:1234", "tiny", findings, [], 150_000_000, 1.0)


def a_smoke(status: str = "pass") -> SmokeReport:
    return SmokeReport(
        target="image",
        kind="image",
        image_id="sha256:1234",
        variant="tiny",
        profile=Profile("a", 1, 2048),
        model="scripted",
        kv=KvVerdict(Kv("q4_0", "q4_0"), (), "pass", "", "", "", ""),
        findings=[Finding("identity", status, "200", "it exited")],
        required=[],
        not_available=[],
        ready_s=1.0,
        duration_s=5.0,
        log="/logs/smoke.log",
    )


def stages(audit: str = "pass", smoke: str = "pass", build=None) -> Stages:
    return Stages(
        build=build or (lambda _, order, *__: a_receipt(order.ref)),
        audit=lambda *_: an_audit(audit),
        smoke=lambda *_: a_smoke(smoke),
    )


def failing(error: BaseException):
    def build(*_):
        raise error

    return build


BROKEN = BuildFailedError("the build failed", why="a.cu(7): error", log="/logs/build.log")


@pytest.mark.parametrize(
    ("what", "stage", "evidence", "log"),
    [
        (stages(build=failing(BROKEN)), "build", "a.cu(7): error", "/logs/build.log"),
        (stages(audit="fail"), "audit", "size: 150 MB", "/logs/build.log"),
        (stages(smoke="fail"), "smoke", "identity: it exited", "/logs/smoke.log"),
    ],
)
def test_a_stage_that_fails_is_named_with_its_log_and_nothing_changes(
    file, home, progress, what, stage, evidence, log
):
    with pytest.raises(RefusedError, match=f"^{stage} failed: tiny at ") as caught:
        bump.bump(file, Request(pr_body=home.path / "pr.md"), what, progress)
    assert (caught.value.exit_code, home.git("status", "--short")) == (1, "")
    assert evidence in caught.value.why
    assert log in caught.value.hint


def test_what_a_smoke_had_to_prove_and_did_not_is_told_with_what_it_saw(file, progress):
    unproven = replace(a_smoke("unproven"), required=["contract"])
    with pytest.raises(RefusedError, match=r"^smoke failed") as caught:
        bump.bump(file, Request(), replace(stages(), smoke=lambda *_: unproven), progress)
    assert "identity: it exited; expected: 200" in caught.value.why


def test_a_commit_without_what_the_pins_name_of_it_is_not_pinned(file, home, progress):
    def build(_, order, *__):
        return replace(a_receipt(order.ref), left_out=["codebooks", "kv_types.turbo3"])

    with pytest.raises(RefusedError, match=r"^build failed: tiny at ") as caught:
        bump.bump(file, Request(), stages(build=build), progress)
    assert home.git("status", "--short") == ""
    assert caught.value.why == "pins.toml names what the commit lacks: codebooks, kv_types.turbo3"
    assert caught.value.hint.startswith("take it out of pins.toml first")


@pytest.mark.parametrize("error", [EngineError("no engine"), KeyboardInterrupt()])
def test_a_stage_that_could_not_answer_changes_nothing(file, home, progress, error):
    with pytest.raises(type(error)):
        bump.bump(file, Request(), stages(build=failing(error)), progress)
    assert home.git("status", "--short") == ""


def test_the_candidate_is_built_under_a_name_of_its_own(file, repository, progress):
    head = repository.git("rev-parse", "HEAD")
    asked = []

    def build(candidate, order, results, _):
        asked.append((candidate.forks["tiny"].commit, order.variant, order.ref, order.tag, results))
        return a_receipt(order.ref)

    bump.bump(file, Request(), stages(build=build), progress)
    assert asked == [(head, "tiny", head, f"turboquant:tiny-{head[:9]}", file.parent)]


def test_the_smoke_has_to_prove_what_a_release_needs(file, progress):
    asked = []

    def smoke(_, built, options, *__):
        asked.append((built.image, options.variant, options.require))
        return a_smoke()

    bump.bump(file, Request(), replace(stages(), smoke=smoke), progress)
    assert asked == [("turboquant:tiny-candidate", "tiny", frozenset({"contract"}))]


def test_an_edit_of_the_file_during_the_build_is_kept_and_the_move_refused(file, progress):
    def build(_, order, *__):
        file.write_text(file.read_text() + "# mine\n")
        return a_receipt(order.ref)

    before = file.read_text()
    with pytest.raises(RefusedError, match="edited meanwhile"):
        bump.bump(file, Request(), stages(build=build), progress)
    assert file.read_text() == before + "# mine\n"


@pytest.mark.parametrize(
    ("fork", "wanted", "built"),
    [
        ("spiritbuun", None, "spiritbuun-cuda12-sm86"),  # the default variant
        ("spiritbuun", "spiritbuun-cpu", "spiritbuun-cpu"),
        ("thetom", None, "thetom-cpu"),
        ("mainline", None, "mainline-cpu"),
    ],
)
def test_the_variant_that_is_built(real, progress, fork, wanted, built):
    report = bump.bump(real, Request(fork, variant=wanted), stages(), progress)
    assert report.proof.variant == built


def test_a_variant_of_another_fork_is_refused(real, progress):
    with pytest.raises(UsageError, match="fork mainline has no variant 'spiritbuun-cpu'"):
        bump.bump(real, Request("mainline", variant="spiritbuun-cpu"), stages(), progress)


# --- What is told ---------------------------------------------------------------------------------


def test_without_stages_the_move_is_called_unproven_everywhere(file, home):
    result = builder("bump", "--pr-body", home.path / "pr.md", "--pins", file)
    assert "unproven: nothing was built or served" in result.stdout
    assert "**Unproven**" in (home.path / "pr.md").read_text()
    home.git("checkout", "--quiet", ".")
    told = json.loads(builder("bump", "--json", "--pins", file).stdout)
    assert (told["verdict"], told["proof"], told["written"]) == ("unproven", None, True)


def test_with_stages_the_verdicts_and_both_receipts_are_told(file, home, progress):
    old = pinned(file)
    receipt.write(a_receipt(old, size_bytes=140_000_000, duration_s=80.0), home.path)
    report = bump.bump(file, Request(pr_body=home.path / "pr.md"), stages(), progress)
    body = (home.path / "pr.md").read_text()
    assert report.verdict == "proven"
    assert "**Proven** on `tiny`" in body
    assert "| image | 140 MB | 150 MB |" in body
    assert "| build time | 80 s | 90 s |" in body
    assert "- smoke: `PASS  image" in body
    assert "nproven" not in body


def test_what_a_smoke_measured_is_kept_for_the_next_move(file, home, repository, progress):
    numbers = KvVerdict(
        Kv("q4_0", "q4_0"), (), "pass", "", "", "", "KL 1.8e-02 against f16, top-1 80%"
    )
    measured = replace(stages(), smoke=lambda *_: replace(a_smoke(), kv=numbers))
    calls = replace(a_receipt("x"), ccache=CacheStats(211, 1))
    built = replace(measured, build=lambda _, order, *__: replace(calls, commit=order.ref))
    second, third = (repository.git("rev-parse", name) for name in ("HEAD~1", "HEAD"))
    body = home.path / "pr.md"
    bump.bump(file, Request(to=second, pr_body=body), built, progress)
    assert (
        "| KV against f16 | no smoke kept | KL 1.8e-02 against f16, top-1 80% |" in body.read_text()
    )
    receipt.write(a_receipt(second), home.path)
    bump.bump(file, Request(to=third, pr_body=body), built, progress)
    text = body.read_text()
    assert "| KV against f16 | KL 1.8e-02 against f16, top-1 80% | KL 1.8e-02" in text
    assert "| probes | 1 pass | 1 pass |" in text
    assert "| compiler calls | nothing compiled | 1 compiled, 211 from ccache |" in text
    changed = home.git("status", "--short").split()
    assert changed == ["M", "dockerfiles/rendered/tiny.Dockerfile", "M", "pins.toml", "??", "pr.md"]


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"findings": 1, "kv": {}}'])
def test_a_kept_smoke_of_another_shape_is_none(tmp_path, text):
    file = tmp_path / "build" / "smokes" / f"tiny-{'a' * 9}.json"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    assert kept_smoke.read("tiny", "a" * 40, tmp_path) is None


def test_the_commits_are_told_by_what_they_touch_most_dangerous_first(
    file, home, repository, progress
):
    for name in ("docs", "ggml/src/ggml-cuda"):
        (repository.path / name).mkdir(parents=True)
    (repository.path / "docs" / "a.md").write_text("words")
    repository.commit("words")
    (repository.path / "ggml/src/ggml-cuda" / "mmq.cu").write_text("kernel")
    head = repository.commit("fix garbage output")
    report = bump.bump(file, Request(pr_body=home.path / "pr.md"), None, progress)
    assert [group.name for group in report.groups] == ["kv-cuda", "docs"]
    body = (home.path / "pr.md").read_text()
    assert "4 commits in the new pin" in body
    first, _, rest = body.partition("**KV cache and CUDA kernels** (1 commit, 1 fix)")[2].partition(
        "**docs** (3 commits)"
    )
    assert f"`{head[:9]}`" in first
    assert first.rstrip().endswith("`fix garbage output` (fix)")
    assert rest.count("\n- ") == 3


def test_commits_off_the_branch_are_told_by_what_they_touch_too(file, home, repository, progress):
    bump.bump(file, Request(), None, progress)
    repository.git("reset", "--quiet", "--hard", "HEAD~1")
    repository.commit("instead", CMakeLists_txt="project(tiny)")
    report = bump.bump(file, Request(pr_body=home.path / "pr.md"), None, progress)
    assert [group.name for group in report.groups] == ["build"]


def test_without_a_summary_no_names_of_files_are_fetched(file, progress, private_cache):
    assert bump.bump(file, Request(), None, progress).groups == ()
    assert not list(private_cache.rglob("names"))


def test_a_move_links_its_commits_and_their_comparison(real, repository, progress):
    url = "https://github.com/spiritbuun/buun-llama-cpp"
    first, head = (repository.git("rev-parse", name) for name in ("HEAD~2", "HEAD"))
    bump.bump(real, Request(to=first), None, progress)
    bump.bump(real, Request(pr_body=real.parent / "pr.md"), None, progress)
    body = (real.parent / "pr.md").read_text()
    assert f"({url}/compare/{first}...{head})" in body
    assert f"- [`{head[:9]}`]({url}/commit/{head})" in body
    assert "2 commits in the new pin" in body


def test_a_merge_is_one_commit_of_the_list(file, repository, progress):
    bump.bump(file, Request(), None, progress)
    repository.git("checkout", "--quiet", "-b", "upstream")
    repository.commit("upstream 1")
    repository.commit("upstream 2")
    repository.git("checkout", "--quiet", "master")
    repository.git("merge", "--quiet", "--no-ff", "--message", "merge upstream", "upstream")
    report = bump.bump(file, Request(), None, progress)
    assert [one.subject for one in report.commits] == ["merge upstream"]
    assert report.new.build_number == 6


def test_a_subject_is_neither_markup_nor_a_mention(file, home, repository, progress):
    repository.commit("fix `x` <img src=y> @everyone #1")
    bump.bump(file, Request(pr_body=home.path / "pr.md"), None, progress)
    assert "`fix 'x' <img src=y> @everyone #1`" in (home.path / "pr.md").read_text()


@pytest.mark.parametrize(
    "words",
    [
        ["--build"],
        ["--smoke"],
        ["--variant", "tiny"],
        ["--dry-run", "--build", "--smoke"],
        ["--dry-run", "--pr-body", "x"],
    ],
)
def test_flags_that_contradict_are_exit_2(file, words):
    assert builder("bump", *words, "--pins", file).returncode == 2
