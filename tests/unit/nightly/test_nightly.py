"""A night goes step by step, each written down; what is killed is gone on with, and told."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from builder.bisect.report import BisectReport
from builder.build import compile_cache
from builder.bump import fork as bump
from builder.bump.fork import RefusedError
from builder.common.errors import (
    EngineError,
    NameTakenError,
    NotProvenError,
    RemoteUnavailableError,
    UsageError,
)
from builder.freshness.report import Failure, ForkReport
from builder.model.finding import Finding
from builder.model.pins import BaseImage
from builder.nightly import journal as night_journal
from builder.nightly import night as nightly
from builder.nightly import nights
from builder.release import record
from builder.release.record import Night
from builder.smoke.report import CONTRACT
from tests.conftest import Recorder, Repository, builder
from tests.support import night_world
from tests.support.night_world import World, ends, killed
from tests.unit.bump.test_bump import a_smoke

pytestmark = pytest.mark.usefixtures("private_cache")

STEPS = [name for name, _ in nightly.STEPS]
ACTING = [name for name in STEPS if name != "candidate"]
"""All of them leave a trace in the world but the one that only asks git."""


@pytest.fixture
def home(tiny_pins: Path, repository: Repository) -> Path:
    """A folder with pins.toml, pinned to the first commit of three."""
    first = repository.git("rev-parse", "HEAD~2")
    bump.bump(tiny_pins, bump.Request(to=first), None, Recorder())
    return tiny_pins.parent


@pytest.fixture
def world(home: Path) -> World:
    return World(home)


def statuses(night: Night) -> dict[str, str]:
    return {step.name: step.status for step in night.steps}


def one_night(world: World, **changes: object) -> Night:
    report = nights.run([world.case(**changes)], ends(), Recorder())
    assert not report.not_judged, report.not_judged
    (night,) = report.nights
    return night


# --- A night --------------------------------------------------------------------------------------


def test_a_night_takes_the_newest_commit_through_every_step(world, repository):
    night = one_night(world)
    assert world.done == ACTING
    assert (night.outcome, night.commit) == ("promoted", repository.git("rev-parse", "HEAD"))
    assert world.floating == {"tiny": night.release}
    assert record.read_nights(world.record) == [night]


def test_what_audit_and_smoke_have_shown_is_handed_on_to_the_publishing(world, monkeypatch):
    probes = [Finding(name, "pass", "", "") for name in (*CONTRACT, "kv")]
    monkeypatch.setattr(world, "smoke", lambda *_: replace(a_smoke(), findings=probes))
    one_night(world)
    assert sorted(world.passed) == ["audit", "contract", "kv"]


def test_a_probe_that_did_not_pass_is_not_handed_on(world):
    one_night(world)
    assert world.passed == ["audit"], "the smoke of this world has one probe of the contract"


def test_the_releases_name_is_the_one_that_the_moved_pin_will_have(world, home, progress):
    night = one_night(world)
    bump.bump(home / "pins.toml", bump.Request(), None, progress)
    assert one_night(world).outcome == "unchanged"
    assert world.floating == {"tiny": night.release}


def test_a_second_night_of_the_same_commit_builds_nothing(world):
    one_night(world)
    night = one_night(world)
    assert night.outcome == "unchanged"
    assert world.done == [*ACTING, "freshness"]


def test_a_release_that_the_tags_were_moved_from_is_not_promoted_again(world):
    night = one_night(world)
    index = record.read_index(world.record)
    release = record.read_release(world.record, night.release)
    record.write_release(world.record, release, replace(index, floating={"tiny": "tiny-earlier"}))
    assert one_night(world).outcome == "unchanged"
    assert world.floating == {"tiny": "tiny-earlier"}


def test_a_release_that_was_published_and_never_promoted_is_promoted_unbuilt(world, monkeypatch):
    monkeypatch.setattr(world, "promote", failing(RemoteUnavailableError("no registry")))
    nights.run([world.case()], ends(), Recorder())
    monkeypatch.undo()
    night = one_night(world, request=replace(world.case().request, restart=True))
    assert night.outcome == "promoted"
    assert statuses(night)["build"] == statuses(night)["publish"] == "skipped"
    assert world.done.count("build") == 1


def failing(error: BaseException):
    def fail(*_):
        raise error

    return fail


def test_another_ref_is_another_candidate(world, repository):
    wanted = repository.git("rev-parse", "HEAD~1")
    night = one_night(world, request=replace(world.case().request, ref=wanted[:9]))
    assert night.commit == wanted


def test_the_pin_itself_needs_no_pull_request(world, repository):
    night = one_night(world, request=replace(world.case().request, pinned=True))
    assert night.commit == repository.git("rev-parse", "HEAD~2")
    assert statuses(night)["bump"] == "skipped"


def test_what_is_older_than_the_pin_is_no_candidate(world, home, repository, progress):
    bump.bump(home / "pins.toml", bump.Request(), None, progress)
    first = repository.git("rev-parse", "HEAD~2")
    night = one_night(world, request=replace(world.case().request, ref=first))
    assert (night.outcome, night.failed_step) == ("failed", "candidate")
    assert "backwards" in night.steps[-1].detail


# --- A candidate that fails -----------------------------------------------------------------------


@pytest.mark.parametrize("step", ["build", "audit", "smoke"])
def test_a_candidate_that_fails_leaves_the_tags_and_is_told(world, repository, step):
    good = one_night(world)
    repository.commit("a bad one", notes_md="bad")
    told = []
    world.broken = step
    report = nights.run([world.case()], ends(told), Recorder())
    (night,) = report.nights
    assert (report.exit_code, night.outcome, night.failed_step) == (1, "failed", step)
    assert world.floating == {"tiny": good.release}
    assert night.steps[-1].name == step
    assert f"{step} failed at `{night.commit[:9]}`" in told[0]
    assert night.steps[-1].detail in told[0]


@pytest.mark.parametrize("step", ["audit", "smoke"])
def test_what_a_candidate_compiled_is_read_by_the_next_if_its_night_passed(
    world, repository, monkeypatch, step
):
    devel = BaseImage("devel", "compilers@sha256:1", "sha256:1", "hub")
    url = world.case().everything.forks["tiny"].url
    mounts = []

    def build(pins, order, *_):
        assert order.candidate
        cache = compile_cache.choose("tiny", url, "commits", order.ref, url, devel)
        mounts.append(compile_cache.mount_id(cache, anew=False))
        return replace(World.build(world, pins, order), fork="tiny", bases=[devel])

    monkeypatch.setattr(world, "build", build)
    for number, broken in enumerate(["", step, ""]):
        repository.commit("another", notes_md=str(number))
        world.broken = broken
        one_night(world)
    good, failed, after = mounts
    assert good == failed != after


def test_a_failure_that_is_the_machines_is_no_verdict(world):
    world.broken = "machine"
    report = nights.run([world.case()], ends(), Recorder())
    assert (report.exit_code, report.nights) == (5, [])
    assert record.read_nights(world.record) == []


def test_a_candidate_that_failed_is_tried_again_by_the_next_night(world):
    world.broken = "smoke"
    one_night(world)
    world.broken = ""
    assert one_night(world).outcome == "promoted"


def test_one_variant_that_fails_hides_no_other(world, home):
    broken = World(home, broken="build")
    other = replace(broken.case(), record=home / "elsewhere" / "record")
    report = nights.run([other, world.case()], ends(), Recorder())
    assert [one.outcome for one in report.nights] == ["failed", "promoted"]
    assert report.exit_code == 1


def test_a_remote_that_does_not_answer_is_exit_6_and_hides_no_other(world, home):
    gone = ForkReport("tiny", "", "master", "", "", "unknown", failure=Failure("gone", "", ""))
    lost = world.case()
    lost = replace(lost, stages=replace(lost.stages, look=lambda *_: gone))
    other = replace(world.case(), record=home / "elsewhere" / "record")
    report = nights.run([lost, other], ends(), Recorder())
    assert [one.what for one in report.not_judged] == ["gone"]
    assert [one.outcome for one in report.nights] == ["promoted"]
    assert report.exit_code == 6


# --- Going on -------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", STEPS)
def test_a_kill_after_a_step_repeats_no_finished_step(world, repository, step):
    good = one_night(world)
    newer = repository.commit("a newer one", notes_md="newer")
    following = [f"before:{name}" for name in STEPS[1:]] + ["in:tell"]
    killed(world, following[STEPS.index(step)])
    # The tag is the older one's until the newer is promoted, and never one's that did not pass.
    assert (world.floating == {"tiny": good.release}) == (step not in {"promote", "bump"})
    night = one_night(world)
    assert (night.outcome, night.commit) == ("promoted", newer)
    assert world.floating == {"tiny": night.release}
    assert [one for one in world.done if one != "tell"] == ACTING * 2


@pytest.mark.parametrize("step", ACTING)
def test_a_kill_in_a_step_does_that_step_again_and_no_other(world, step):
    killed(world, f"in:{step}")
    assert one_night(world).outcome == "promoted"
    assert world.done == [name for name in ACTING for _ in range(1 + (name == step))]


def test_a_kill_while_a_failure_is_told_tells_it_once_more(world):
    world.broken = "smoke"
    killed(world, "in:tell")
    nights.run([world.case()], world.ends(), Recorder())
    assert world.done == ["freshness", "build", "audit", "smoke", "tell", "tell"]


def test_an_edit_of_pins_toml_begins_the_night_anew(home, world):
    killed(world, "before:publish")
    with (home / "pins.toml").open("a") as file:
        file.write("\n# an edit\n")
    progress = Recorder()
    nights.run([world.case()], ends(), progress)
    assert "of another order" in progress.warnings[0]
    assert world.done.count("build") == 2


def test_a_night_of_yesterday_is_left(world):
    killed(world, "before:publish")
    file = night_journal.path(world.record, "tiny")
    old = datetime.now(UTC) - timedelta(hours=13)
    journal = night_journal.load(file)
    night_journal.save(replace(journal, begun=old.strftime("%Y-%m-%dT%H:%M:%SZ")), file)
    progress = Recorder()
    nights.run([world.case()], ends(), progress)
    assert "began too long ago" in progress.warnings[0]
    assert world.done.count("build") == 2


def test_restart_forgets_how_far_a_night_came(world):
    killed(world, "before:publish")
    one_night(world, request=replace(world.case().request, restart=True))
    assert world.done.count("build") == 2


def test_an_error_that_is_nobodys_fault_is_gone_on_behind(world, monkeypatch):
    monkeypatch.setattr(world, "smoke", failing(EngineError("no engine")))
    assert nights.run([world.case()], ends(), Recorder()).exit_code == 4
    monkeypatch.undo()
    assert one_night(world).outcome == "promoted"
    assert world.done == ACTING


def test_each_nights_record_is_kept_before_the_next_night_begins(world):
    def keep(_):
        world.did("keep")

    nights.run([world.case(), world.case()], replace(ends(), keep=keep), Recorder())
    assert world.done.count("keep") == 2
    assert world.done[-2:] != ["keep", "keep"]


def test_an_interrupt_keeps_the_record_of_the_nights_before_it(world, home):
    interrupted = World(home)
    interrupted.smoke = failing(KeyboardInterrupt())
    other = replace(interrupted.case(), record=home / "elsewhere" / "record")
    kept = []
    after = replace(ends(), keep=lambda _: kept.append(dict(world.floating)))
    with pytest.raises(KeyboardInterrupt):
        nights.run([world.case(), other], after, Recorder())
    # After its own night, and after the interrupt.
    assert kept == [world.floating, world.floating]
    assert "tiny" in world.floating


# --- Bisect ---------------------------------------------------------------------------------------


def a_report(**changes: object) -> BisectReport:
    made = BisectReport(
        fork="tiny",
        url="",
        stage="build",
        command=[],
        variant="tiny",
        good_ref="a",
        good="a" * 40,
        bad_ref="b",
        bad="b" * 40,
        outcome="stopped",
        commits=3,
        suspects=[],
        first_bad=None,
        last_good=None,
        merges=[],
        stat="",
        evidence=None,
        judged=[],
        steps=0,
        steps_left=1,
        notes=[],
        setup="",
        state="",
        duration_s=1.0,
    )
    return replace(made, **changes)


@pytest.fixture
def asked(world: World, monkeypatch: pytest.MonkeyPatch):
    """Nights that fail on one date each, and the bisects that they ask for."""
    requests = []

    def bisect(_, request, *__):
        requests.append(request)
        return a_report()

    def fail(date: str, step: str = "build") -> Night:
        world.broken = step
        monkeypatch.setattr(nightly, "_rfc3339", lambda _: f"{date}T01:00:00Z")
        monkeypatch.setattr(nightly, "_SAME_NIGHT", timedelta(days=10_000))
        (night,) = nights.run([world.case()], ends(bisect=bisect), Recorder()).nights
        return night

    return requests, fail


def test_after_three_failing_nights_it_bisects_from_what_passed_to_what_failed_first(
    world, repository, asked
):
    requests, fail = asked
    good = one_night(world)
    bad = repository.commit("bad", notes_md="bad")
    fail("2026-12-01")
    repository.commit("bad still", notes_md="bad still")
    fail("2026-12-02")
    assert requests == []
    night = fail("2026-12-03")
    (request,) = requests
    assert (request.good, request.bad, request.stage) == (good.commit, bad, "build")
    assert night.bisect == f"A bisect found no first bad commit: {a_report().headline}"


def test_a_failure_of_another_kind_is_another_question(world, repository, asked):
    requests, fail = asked
    one_night(world)
    repository.commit("bad", notes_md="bad")
    fail("2026-12-01", "smoke")
    fail("2026-12-02", "smoke")
    other = repository.commit("worse", notes_md="worse")
    fail("2026-12-03", "build")
    assert [(one.bad, one.stage) for one in requests] == [(other, "build")]


def test_a_bisect_that_cannot_be_is_told_and_the_night_ends(world):
    text = (world.home / "pins.toml").read_text()
    policy = 'release = { require = ["contract"] }'
    assert policy in text
    text = text.replace(policy, f"{policy}\nnightly = {{ bisect_after = 1 }}")
    (world.home / "pins.toml").write_text(text)
    world.broken = "build"
    told = []
    after = ends(told, bisect=failing(EngineError("no engine")))
    report = nights.run([world.case()], after, Recorder())
    assert report.exit_code == 1
    assert "A bisect was tried and gave no answer: `no engine`" in told[0]


# --- Which, and how it is told --------------------------------------------------------------------


def test_nights_are_of_the_variants_that_the_policy_names(real_pins):
    assert nights.chosen(real_pins, []) == real_pins.policy.nightly.variants


def test_without_a_policy_they_are_of_all_whose_fork_has_an_address(real_pins):
    policy = replace(real_pins.policy, nightly=replace(real_pins.policy.nightly, variants=[]))
    names = nights.chosen(replace(real_pins, policy=policy), [])
    assert "aaryan-kapoor-cpu" not in names
    assert "turbo-tan-cuda12-sm86" in names


@pytest.mark.parametrize("name", ["no-such", "aaryan-kapoor-cpu"])
def test_a_variant_that_cannot_be_is_refused_before_any_night(real_pins, name):
    with pytest.raises(UsageError):
        nights.chosen(real_pins, ["mainline-cpu", name])


def test_the_matrix_is_one_line_of_githubs_shape():
    made = builder("matrix", "mainline-cpu", "spiritbuun-cuda12-sm86", "--json")
    jobs = json.loads(made.stdout)
    assert made.stdout.count("\n") == 1
    assert list(jobs) == ["include"]
    assert jobs["include"][0] == {
        "variant": "mainline-cpu",
        "fork": "mainline",
        "runner": "ubuntu-24.04",
        "gpu": False,
    }


def test_a_gpu_runner_gets_the_variants_with_cuda_and_no_other():
    words = ["mainline-cpu", "spiritbuun-cuda12-sm86", "--gpu-runner", "mine", "--json"]
    jobs = json.loads(builder("matrix", *words).stdout)["include"]
    assert [(one["runner"], one["gpu"]) for one in jobs] == [
        ("ubuntu-24.04", False),
        ("mine", True),
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--ref", "x", "--pinned"], "--ref and --pinned"),
        (["mainline-cpu", "thetom-cpu", "--ref", "x"], "--ref goes with one fork"),
        (["no-such"], "unknown variant"),
        (["mainline-cpu"], "where to? pins.toml has no policy.release.repository"),
    ],
)
def test_orders_that_contradict_are_exit_2(words, message):
    made = builder("nightly", *words)
    assert (made.returncode, message in made.stderr) == (2, True)


def test_a_dry_run_says_what_would_be_done_and_does_none_of_it(home, repository):
    made = builder(
        "nightly", "--dry-run", "--to", night_world.REPOSITORY, "--pins", home / "pins.toml"
    )
    assert made.returncode == 0, made.stderr
    head = repository.git("rev-parse", "HEAD")[:9]
    assert f"tiny: {head} as {night_world.REPOSITORY}:tiny-b3-{head}-r" in made.stdout
    assert "build, audit, smoke, publish, promote, bump" in made.stdout
    assert not (home / "build").exists()


@pytest.mark.parametrize(
    ("error", "log"),
    [
        (RefusedError("smoke failed", log="/a/log"), "/a/log"),
        (NotProvenError("no kv", log="/b/log"), "/b/log"),
    ],
)
def test_what_is_pulled_back_and_does_not_pass_is_the_candidates_fault(
    world, monkeypatch, error, log
):
    monkeypatch.setattr(world, "publish", failing(error))
    night = one_night(world)
    assert (night.failed_step, night.steps[-1].log) == ("publish", log)


def test_a_name_that_is_taken_is_no_verdict(world, monkeypatch):
    monkeypatch.setattr(world, "publish", failing(NameTakenError("it is another image already")))
    report = nights.run([world.case()], ends(), Recorder())
    assert (report.exit_code, report.nights) == (8, [])


def test_a_dry_run_as_json_has_the_candidate_and_its_name(home, repository):
    words = ["--dry-run", "--json", "--to", night_world.REPOSITORY]
    made = builder("nightly", *words, "--pins", home / "pins.toml")
    (planned,) = json.loads(made.stdout)["planned"]
    head = repository.git("rev-parse", "HEAD")
    assert (planned["variant"], planned["commit"]) == ("tiny", head)
    assert planned["release"].startswith(f"tiny-b3-{head[:9]}-r")


def test_a_dry_run_of_several_tells_each(home):
    text = (home / "pins.toml").read_text()
    gone = text.replace("tiny", "other").replace("file://", "file:///nowhere")
    more = gone[gone.index("[forks.other]") : gone.index("[bases.")]
    (home / "pins.toml").write_text(f"{text}\n{more}\n{gone[gone.index('[variants.other]') :]}")
    words = ["--dry-run", "--to", night_world.REPOSITORY, "--pins", home / "pins.toml"]
    made = builder("nightly", "other", "tiny", *words)
    assert made.returncode == 6, made.stderr
    assert "other: not judged: " in made.stdout
    assert f" as {night_world.REPOSITORY}:tiny-b3-" in made.stdout
