"""The first bad commit of a real git repository, judged by commands and by stages."""

import json
import os
import select
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from builder.bisect import report as bisect_report
from builder.bisect import state as bisect_state
from builder.bisect.judge import AbortedError, Stages, parse_command, parse_stage
from builder.bisect.run import Request, bisect, parse_budget
from builder.common.errors import (
    BuildFailedError,
    EngineError,
    RefNotFoundError,
    RemoteUnavailableError,
    UsageError,
)
from builder.model.finding import Finding
from builder.model.pins import Kv, Profile, Receipt
from builder.pins import load as pins
from builder.smoke.probes.kv import KvVerdict
from builder.smoke.report import SmokeReport
from tests.conftest import Recorder, Repository, builder, start_builder

pytestmark = pytest.mark.usefixtures("private_cache")

# Says no (1) from the commit on that writes "bad" into notes.md, and 125 where it says "broken".
JUDGE = """
import pathlib, sys
pathlib.Path({asked!r}).open("a").write(sys.argv[1] + "\\n")
text = pathlib.Path("notes.md").read_text()
print("it says " + text)
sys.exit(125 if "broken" in text else 1 if "bad" in text else 0)
"""


class Fork:
    """A fork of twelve commits after the first, the tenth of which is bad; and who judges it."""

    def __init__(self, repository: Repository, file: Path, folder: Path) -> None:
        self.repository = repository
        self.file = file
        self.asked = folder / "asked"
        self.script = folder / "judge.py"
        self.judged_by(JUDGE.format(asked=str(self.asked)))
        self.commits = [repository.git("rev-parse", "HEAD")]

    def judged_by(self, text: str) -> None:
        self.script.write_text(text)

    def grow(self, *notes: str) -> None:
        for text in notes:
            number = len(self.commits)
            self.commits.append(self.repository.commit(f"number {number}", notes_md=text))

    @property
    def command(self) -> tuple[str, ...]:
        return (sys.executable, str(self.script), "{commit}")

    def request(self, **more) -> Request:
        ends = {"good": self.commits[0], "bad": "master", "command": self.command}
        return Request("tiny", **{**ends, **more})

    def bisect(self, progress=None, stages=None, **more):
        everything = pins.load(self.file)
        stages = stages or Stages(build=never, smoke=never, untag=never)
        where = self.file.parent
        return bisect(everything, self.request(**more), stages, where, progress or Recorder())

    def state(self):
        return bisect_state.load(bisect_state.path(self.file.parent, "tiny"))

    def numbers(self) -> list[int]:
        """Which commits were judged, in order; -1 is one that is not on the line."""
        asked = self.asked.read_text().split()
        return [self.commits.index(one) if one in self.commits else -1 for one in asked]


def never(*_):
    raise AssertionError("this was not asked for")


@pytest.fixture
def fork(tmp_path: Path, tiny_pins: Path, repository: Repository) -> Fork:
    (tmp_path / "judge").mkdir()
    made = Fork(repository, tiny_pins, tmp_path / "judge")
    made.grow(*(f"{n}" for n in range(1, 10)), *(f"{n} bad" for n in range(10, 13)))
    return made


# --- What is found --------------------------------------------------------------------------------


def test_the_first_bad_commit_is_found_with_its_parent_and_what_it_changes(fork):
    report = fork.bisect()
    assert report.first_bad.commit == fork.commits[10]
    assert report.last_good == fork.commits[9]
    assert report.stat.splitlines()[0].split() == ["notes.md", "|", "2", "+-"]


def test_it_takes_no_more_steps_than_halving(fork):
    assert fork.bisect().steps <= 4
    assert len(fork.numbers()) <= 4


def test_the_evidence_is_what_the_command_said_and_where(fork):
    evidence = fork.bisect().evidence
    assert evidence.reason == "exit code 1\nit says 10 bad"
    assert Path(evidence.log).read_text() == "it says 10 bad\n"


def test_ends_are_taken_at_their_word(fork):
    fork.bisect(good=fork.commits[4], bad=fork.commits[11])
    assert not {4, 11} & set(fork.numbers())


def test_a_bad_end_that_would_be_the_answer_is_judged(fork):
    report = fork.bisect(bad=fork.commits[10])
    assert (report.first_bad.commit, fork.numbers()[-1]) == (fork.commits[10], 10)


def test_what_a_commit_changes_is_told_though_its_parent_was_never_judged(fork):
    report = fork.bisect(good=fork.commits[9], bad=fork.commits[10])
    assert fork.numbers() == [10]
    assert "1 file changed" in report.stat


def test_the_first_error_is_told_and_not_only_the_end_of_the_output(fork):
    fork.judged_by("print('a.c:1: error: x'); print('noise\\n' * 50); raise SystemExit(1)")
    reason = fork.bisect(good=fork.commits[0], bad=fork.commits[1]).evidence.reason
    assert reason.splitlines()[:2] == ["exit code 1", "a.c:1: error: x"]


def test_a_bad_end_that_is_good_is_no_answer(fork):
    report = fork.bisect(bad=fork.commits[9])
    assert (report.outcome, report.exit_code, report.issue) == ("bad-is-good", 1, "")


@pytest.mark.parametrize(
    ("good", "bad", "outcome", "judged"),
    [(0, 9, "bad-is-good", [9]), (10, 12, "good-is-bad", [12, 10])],
)
def test_ends_are_judged_when_asked_for(fork, good, bad, outcome, judged):
    ends = {"good": fork.commits[good], "bad": fork.commits[bad]}
    report = fork.bisect(**ends, check_ends=True)
    assert (report.outcome, fork.numbers()) == (outcome, judged)


def test_an_end_that_cannot_be_judged_is_no_end(fork):
    fork.grow("broken")
    assert fork.bisect(check_ends=True).outcome == "end-not-judged"


def test_a_commit_that_cannot_be_judged_is_passed_over(fork):
    fork.grow("broken", "13 bad", "14 bad")
    assert fork.bisect().first_bad.commit == fork.commits[10]
    fork.grow("fixed", "broken", "bad")
    report = fork.bisect(good=fork.commits[16])
    assert (report.outcome, report.exit_code) == ("range", 1)
    assert [one.subject for one in report.suspects] == ["number 17", "number 18"]


def test_a_range_is_told_commit_by_commit_and_as_an_issue(fork):
    fork.grow("fixed", "broken", "bad")
    report = fork.bisect(good=fork.commits[13])
    assert "number 14  can't be judged (run: exit code 125)" in bisect_report.to_text(report)
    assert report.issue.startswith("# A check fails since one of 2 commits\n")


def test_a_bad_end_that_cannot_be_judged_is_nothing_to_tell_the_fork(fork):
    fork.grow("broken")
    report = fork.bisect(good=fork.commits[12])
    assert (report.outcome, report.issue) == ("range", "")


# --- Merges ---------------------------------------------------------------------------------------


@pytest.fixture
def merged(fork: Fork) -> Callable[..., dict[str, str]]:
    """Merges upstream commits, given by their notes, into a fork that keeps its own file."""

    def merge(*notes: str, begin: str = "fine") -> dict[str, str]:
        git = fork.repository.git
        git("checkout", "--quiet", "--orphan", "upstream")
        made = {"base": fork.repository.commit("upstream begins", notes_md=begin)}
        git("checkout", "--quiet", "-B", "master")
        made["good"] = fork.repository.commit("the fork's own", own_md="own")
        git("checkout", "--quiet", "upstream")
        for text in notes:
            made[text] = fork.repository.commit(f"upstream: {text}", notes_md=text)
        git("checkout", "--quiet", "master")
        git("merge", "--quiet", "--no-ff", "--message", "Merge upstream", "upstream")
        made["merge"] = git("rev-parse", "HEAD")
        made["after"] = fork.repository.commit("the fork goes on", own_md="more")
        return made

    return merge


def test_a_merge_is_one_step(fork, merged):
    made = merged("a", "b", "c bad", "d bad")
    report = fork.bisect(good=made["good"])
    assert (report.commits, report.first_bad.commit) == (2, made["merge"])


def test_a_merge_is_entered_when_asked_for(fork, merged):
    made = merged("a", "b", "c bad", "d bad")
    report = fork.bisect(good=made["good"], enter_merges=True)
    assert report.first_bad.commit == made["c bad"]
    assert [one.commit for one in report.merges] == [made["merge"]]


def test_entering_later_judges_nothing_twice(fork, merged):
    made = merged("a", "b", "c bad", "d bad")
    fork.bisect(good=made["good"])
    fork.bisect(good=made["good"], enter_merges=True)
    asked = fork.asked.read_text().split()
    assert len(asked) == len(set(asked))


def test_a_merge_of_good_sides_is_itself_the_answer(fork, merged):
    made = merged("a", "b")
    fork.judged_by(
        "import pathlib, sys\n"
        "sys.exit(pathlib.Path('own.md').exists() and 'b' in pathlib.Path('notes.md').read_text())"
    )
    report = fork.bisect(good=made["good"], enter_merges=True)
    assert report.first_bad.commit == made["merge"]


def test_a_branch_that_never_passed_is_not_entered(fork, merged):
    # As mainline under a fork's own smoke: it has not got what is asked for.
    made = merged("a", "b bad")
    fork.judged_by(
        "import pathlib, sys\n"
        "text = pathlib.Path('notes.md').read_text()\n"
        "sys.exit('bad' in text or not pathlib.Path('own.md').exists())"
    )
    report = fork.bisect(good=made["good"], enter_merges=True)
    assert report.first_bad.commit == made["merge"]
    assert (
        f"{made['base'][:9]}, where its branch began, is bad (run: exit code 1)" in report.notes[0]
    )


def test_a_good_end_that_came_in_by_a_merge_is_said(fork, merged):
    made = merged("a", "b bad")
    report = fork.bisect(good=made["a"])
    assert "came in by a merge" in report.notes[0]


# --- Limits, stops and going on -------------------------------------------------------------------


def test_max_builds_ends_it_with_the_range_so_far(fork):
    report = fork.bisect(max_builds=2)
    assert (report.outcome, report.exit_code, report.steps) == ("stopped", 1, 2)
    assert fork.commits[10] in [one.commit for one in report.suspects]
    assert 0 < len(report.suspects) < 12


def test_the_budget_ends_it_between_two_steps(fork):
    report = fork.bisect(budget_s=1e-9)
    assert (report.outcome, report.steps) == ("stopped", 0)
    assert "--budget" in report.notes[0]


def test_the_same_question_goes_on_and_judges_nothing_twice(fork):
    fork.bisect(max_builds=2)
    report = fork.bisect()
    assert report.first_bad.commit == fork.commits[10]
    assert len(set(fork.numbers())) == len(fork.numbers()) == len(report.judged)


def test_it_goes_on_with_what_the_refs_meant(fork):
    fork.bisect(max_builds=2)
    fork.grow("13 bad")
    assert fork.bisect().bad == fork.commits[12]


def test_an_answered_question_is_asked_anew_when_its_refs_moved(fork):
    fork.bisect()
    fork.grow("13 bad")
    assert fork.bisect().bad == fork.commits[13]


def test_an_answered_question_is_answered_again_without_a_step(fork):
    first = fork.bisect()
    again = fork.bisect()
    assert (again.first_bad, again.steps) == (first.first_bad, 0)


def test_another_question_starts_anew_and_says_so(fork):
    fork.bisect(max_builds=2)
    progress = Recorder()
    report = fork.bisect(progress, good=fork.commits[1])
    assert report.steps == len(report.judged)
    assert "starts anew" in progress.warnings[0]
    assert "another question: good" in progress.warnings[0]


def test_restart_forgets_the_verdicts(fork):
    fork.bisect()
    assert fork.bisect(restart=True).steps > 0


def test_a_state_that_is_no_state_is_none(fork):
    fork.bisect()
    bisect_state.path(fork.file.parent, "tiny").write_text('{"schema": 1')
    assert fork.bisect().steps > 0


def test_a_command_that_gives_up_loses_no_verdict(fork):
    fork.bisect(max_builds=2)
    fork.judged_by("import sys; sys.exit(128)")
    with pytest.raises(AbortedError, match="exit code 128"):
        fork.bisect()
    assert len(fork.state().judged) == 2


def test_a_remote_that_stops_answering_loses_no_verdict(fork):
    fork.bisect(max_builds=2)
    away = fork.repository.path.rename(fork.repository.path.with_name("away"))
    progress = Recorder()
    with pytest.raises(RemoteUnavailableError):
        fork.bisect(progress)
    away.rename(fork.repository.path)
    assert fork.bisect().first_bad.commit == fork.commits[10]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_command_and_keeps_the_verdicts(fork, number):
    # The third commit is judged until somebody ends it.
    pipe = fork.script.with_name("pipe")
    os.mkfifo(pipe)
    fork.judged_by(
        "import os, pathlib, signal, sys\n"
        f"asked = pathlib.Path({str(fork.asked)!r})\n"
        "asked.open('a').write('asked\\n')\n"
        "if len(asked.read_text().split()) == 3:\n"
        f"    open({str(pipe)!r}, 'w').write(f'{{os.getpid()}}\\n')\n"
        "    signal.pause()\n"
        "sys.exit('bad' in pathlib.Path('notes.md').read_text())\n"
    )
    reading = os.open(pipe, os.O_RDWR)
    words = ["bisect", "tiny", "--good", fork.commits[0], "--bad", "master", "--pins", fork.file]
    words += ["--run", " ".join(fork.command)]
    running = start_builder(*words)
    assert select.select([reading], [], [], 120)[0]
    process = int(os.read(reading, 20))
    os.close(reading)
    running.send_signal(number)
    _, rest = running.communicate(timeout=60)
    assert running.returncode == 130, rest
    assert "stopped after 2 steps; the same command goes on" in rest
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
    assert len(fork.state().judged) == 2
    result = builder(*words)
    assert (result.returncode, "number 10 is the first bad" in result.stdout) == (0, True)


# --- Refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("good", "bad", "words"),
    [(5, 5, "the same commit"), (8, 3, "the bad one is the older")],
)
def test_ends_that_enclose_nothing_are_refused(fork, good, bad, words):
    with pytest.raises(UsageError, match=words):
        fork.bisect(good=fork.commits[good], bad=fork.commits[bad])


def test_a_good_end_of_another_branch_is_refused(fork):
    fork.repository.git("checkout", "--quiet", "-b", "side", fork.commits[3])
    side = fork.repository.commit("side")
    with pytest.raises(UsageError, match="no ancestor"):
        fork.bisect(good=side)


def test_a_ref_that_is_not_there_is_named(fork):
    with pytest.raises(RefNotFoundError, match="no-such"):
        fork.bisect(bad="no-such")


def test_an_unknown_fork_is_refused(fork):
    request = replace(fork.request(), fork="tinny")
    with pytest.raises(UsageError) as caught:
        bisect(pins.load(fork.file), request, Stages(never, never, never), Path(), Recorder())
    assert "did you mean 'tiny'" in caught.value.hint


def test_a_command_that_cannot_be_started_is_no_verdict(fork):
    with pytest.raises(UsageError, match="no-such-program"):
        fork.bisect(command=("no-such-program",))
    assert fork.state().judged == []


@pytest.mark.parametrize("stage", ["compile", "probe:nothing", "probe:"])
def test_an_unknown_stage_is_refused(stage):
    with pytest.raises(UsageError):
        parse_stage(stage)


@pytest.mark.parametrize("text", ["'not closed", "", "  "])
def test_a_command_without_words_is_refused(text):
    with pytest.raises(UsageError):
        parse_command(text)


def test_a_command_is_split_and_never_expanded():
    assert parse_command("a 'b c' $HOME *") == ("a", "b c", "$HOME", "*")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90m", 5400), ("3h", 10800), ("1h30m", 5400), ("45s", 45), ("1.5h", 5400)],
)
def test_a_budget_in_words(text, seconds):
    assert parse_budget(text) == seconds


@pytest.mark.parametrize("text", ["3", "h", "3 h", "0h", "-3h", "3d"])
def test_a_budget_that_is_no_time_is_refused(text):
    with pytest.raises(UsageError):
        parse_budget(text)


# --- Stages ---------------------------------------------------------------------------------------

BROKEN = BuildFailedError(
    "the build failed", why="a.cu(7): error", log="/logs/build.log", commits_fault=True
)
FULL = BuildFailedError("the build failed", why="No space left on device")


def number(fork: Fork, commit: str) -> int:
    return fork.commits.index(commit)


def made(commit: str, tag: str) -> Receipt:
    empty = {
        "variant": "tiny",
        "fork": "tiny",
        "source": "",
        "dockerfile_sha256": "",
        "created": "",
    }
    sizes = {"size_bytes": 0, "compressed_bytes": 0, "duration_s": 0.0, "build_number": 1}
    more = {"bases": [], "stages": [], "ccache": None, "log": "", "commit_claimed": False}
    return Receipt(ref=commit, commit=commit, image=tag, image_id="", **empty, **sizes, **more)


def smoked(target: str, **statuses: str) -> SmokeReport:
    return SmokeReport(
        target=target,
        kind="image",
        image_id=None,
        variant="tiny",
        profile=Profile("alias", 2, 2048),
        model="model",
        kv=KvVerdict(Kv("q4_0", "q4_0"), (), "pass", "", "", "", ""),
        findings=[Finding(name, status, "this", "that") for name, status in statuses.items()],
        required=[],
        not_available=[],
        ready_s=0.1,
        duration_s=1.0,
        log="/logs/smoke.log",
    )


class Machine:
    """Builds and smokes as the number of a commit says; remembers the names of images."""

    def __init__(self, fork: Fork, build=lambda _: None, smoke=lambda _: {}) -> None:
        self.fork, self._build, self._smoke = fork, build, smoke
        self.tags: set[str] = set()
        self.requests = []

    def build(self, _pins, request, _results, _progress) -> Receipt:
        self.requests.append(request)
        if failure := self._build(number(self.fork, request.ref)):
            raise failure
        self.tags.add(request.tag)
        return made(request.ref, request.tag)

    def smoke(self, _pins, receipt, _options, _results, _progress) -> SmokeReport:
        statuses = {"ready": "pass", "kv": "pass", **self._smoke(number(self.fork, receipt.commit))}
        return smoked(receipt.image, **statuses)

    def bisect(self, **more):
        stages = Stages(self.build, self.smoke, self.tags.discard)
        return self.fork.bisect(stages=stages, **{"command": (), **more})


def test_a_build_that_fails_is_bad_and_no_smoke_is_run(fork):
    machine = Machine(fork, build=lambda n: BROKEN if n >= 5 else None, smoke=never)
    report = machine.bisect()
    assert report.first_bad.commit == fork.commits[5]
    assert (report.evidence.stage, report.evidence.reason) == ("build", "a.cu(7): error")
    assert report.evidence.log == "/logs/build.log"


def test_a_smoke_that_fails_is_bad_with_what_was_expected(fork):
    machine = Machine(fork, smoke=lambda n: {"ready": "fail"} if n >= 5 else {})
    report = machine.bisect(stage="smoke")
    assert report.first_bad.commit == fork.commits[5]
    assert report.evidence.reason == "ready: expected this; observed that"
    assert report.evidence.log == "/logs/smoke.log"


def test_a_commit_that_does_not_build_tells_nothing_of_the_smoke(fork):
    machine = Machine(
        fork,
        build=lambda n: BROKEN if n in {5, 6, 7} else None,
        smoke=lambda n: {"ready": "fail"} if n >= 9 else {},
    )
    report = machine.bisect(stage="smoke")
    assert report.first_bad.commit == fork.commits[9]
    assert {"skip"} == {one.verdict for one in report.judged if one.stage == "build"}


def test_a_probe_decides_alone(fork):
    machine = Machine(fork, smoke=lambda n: {"ready": "fail", "kv": "fail" if n >= 5 else "pass"})
    assert machine.bisect(stage="probe:kv").first_bad.commit == fork.commits[5]


def test_a_probe_that_is_unproven_tells_nothing(fork):
    machine = Machine(fork, smoke=lambda _: {"kv": "unproven"})
    report = machine.bisect(stage="probe:kv")
    assert {one.verdict for one in report.judged} == {"skip"}
    assert report.outcome == "range"


def test_what_is_unproven_and_not_required_is_no_failure_of_a_smoke(fork):
    machine = Machine(
        fork, smoke=lambda n: {"kv": "unproven", "ready": "fail" if n > 4 else "pass"}
    )
    assert machine.bisect(stage="smoke").first_bad.commit == fork.commits[5]


@pytest.mark.parametrize("failure", [FULL, EngineError("gone"), RemoteUnavailableError("no hub")])
def test_what_is_the_machines_fault_is_no_verdict(fork, failure):
    machine = Machine(fork, build=lambda _: failure)
    with pytest.raises(type(failure)):
        machine.bisect()
    assert fork.state().judged == []


def test_no_image_is_left_and_none_gets_a_name_of_the_variants(fork):
    machine = Machine(fork, smoke=lambda n: {"ready": "fail"} if n >= 5 else {})
    machine.bisect(stage="smoke")
    assert machine.tags == set()
    assert all(one.trial and "-bisect-" in one.tag for one in machine.requests)


def test_no_image_is_left_when_a_smoke_is_interrupted(fork):
    def interrupted(_):
        raise KeyboardInterrupt

    machine = Machine(fork, smoke=interrupted)
    with pytest.raises(KeyboardInterrupt):
        machine.bisect(stage="smoke")
    assert (len(machine.requests), machine.tags) == (1, set())


def test_a_command_about_the_image_gets_its_name_after_the_build(fork):
    machine = Machine(fork, build=lambda n: BROKEN if n in {6, 7} else None)
    report = machine.bisect(command=(*fork.command, "{image}"))
    assert report.first_bad.commit == fork.commits[10]
    assert {6, 7}.isdisjoint(fork.numbers())


def test_a_commit_that_the_remote_does_not_give_out_is_skipped(fork):
    # The history is known here when a force-push takes the bad commits away for good.
    fork.bisect(bad=fork.commits[12], max_builds=1)
    git = fork.repository.git
    git("reset", "--hard", "--quiet", fork.commits[9])
    git("reflog", "expire", "--expire=now", "--all")
    git("gc", "--quiet", "--prune=now")
    report = fork.bisect(bad=fork.commits[12])
    assert report.outcome == "range"
    assert [one.commit for one in report.suspects] == fork.commits[10:13]
    skipped = {(one.commit, one.stage) for one in report.judged if one.verdict == "skip"}
    assert skipped == {(commit, "fetch") for commit in fork.commits[10:13]}


def test_a_warning_that_each_step_repeats_is_told_once(fork):
    machine, progress = Machine(fork), Recorder()

    def build(pins, request, results, progress):
        progress.warn("no hub")
        return machine.build(pins, request, results, progress)

    fork.bisect(progress, stages=Stages(build, never, machine.tags.discard), command=())
    assert progress.warnings == ["no hub"]


# --- What is told ---------------------------------------------------------------------------------


def words(fork: Fork, *more: object) -> list[object]:
    ends = ["--good", fork.commits[0], "--bad", "master", "--pins", fork.file]
    return ["bisect", "tiny", *ends, "--run", " ".join(fork.command), *more]


def test_the_command_line_tells_the_commit_and_why(fork):
    result = builder(*words(fork))
    assert result.returncode == 0, result.stderr
    assert f"{fork.commits[10][:9]}" in result.stdout.splitlines()[0]
    assert "it says 10 bad" in result.stdout
    assert "12 commits left, about 4 steps" in result.stderr


def test_json_holds_the_answer_and_the_issue(fork):
    found = json.loads(builder(*words(fork, "--json")).stdout)
    assert (found["schema"], found["outcome"]) == (1, "found")
    assert found["first_bad"]["commit"] == fork.commits[10]
    assert found["issue"].startswith(f"# A check fails since {fork.commits[10][:9]}\n")


def test_the_issue_is_written_and_nothing_in_it_is_anybodys_markup(fork, tmp_path):
    fork.grow("fixed")
    fork.commits.append(fork.repository.commit("`@someone` <b>", notes_md="bad ``` @someone"))
    page = tmp_path / "issue.md"
    more = ("--good", fork.commits[13], "--issue", page)
    assert builder(*words(fork, *more)).returncode == 0
    text = page.read_text()
    assert "`'@someone' <b>`" in text
    assert "````text\nexit code 1\nit says bad ``` @someone\n````" in text


def test_a_dry_run_lists_the_commits_and_judges_none(fork):
    result = builder(*words(fork, "--dry-run"))
    assert result.returncode == 0, result.stderr
    assert "12 commits of 12 to search, about 4 steps" in result.stdout
    assert result.stdout.count("number ") == 12
    assert not fork.asked.exists()
    assert fork.state() is None


def test_a_limit_is_exit_1_with_what_is_left(fork):
    result = builder(*words(fork, "--max-builds", "1"))
    assert result.returncode == 1
    assert "not found yet: 6 commits left, about 3 steps" in result.stdout
    assert "stopped by --max-builds 1; the same command goes on" in result.stdout


def test_a_command_and_a_stage_are_not_mixed(fork):
    assert builder(*words(fork, "--stage", "smoke")).returncode == 2
