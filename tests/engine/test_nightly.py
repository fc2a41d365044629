"""Nights on the real engine and a real registry, by the line of the workflow itself.

The candidates of mainline-cpu are commits of a git repository that is made here from the sdist's
tree, with one file of the server changed in each. Kills are tried on tiny images, whose verdicts
are stand-ins (tests/support/releasing.py).
"""

import contextlib
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import docker
import pytest
import requests
from docker import DockerClient
from docker.errors import ImageNotFound

from builder.build import receipts as receipt
from builder.build import render
from builder.bump import fork as bump
from builder.bump.fork import Stages as Proving
from builder.common.progress import Silent
from builder.engine.image_target import ImageTarget
from builder.llama.flags import server_args
from builder.llama.gguf.scripted import scripted_model
from builder.model.pins import Kv, Profile, Receipt
from builder.nightly import night as nightly
from builder.nightly import nights
from builder.nightly import publish as night_release
from builder.pins import load as pins
from builder.pins.edit import Pin, with_pin
from builder.release import record
from builder.sources import sdist
from tests.conftest import ROOT, Recorder, Repository, builder
from tests.support import docker_registry, github_api, workflows
from tests.support.docker_registry import DockerRegistry
from tests.support.github_api import Answer, Api, page
from tests.support.night_world import World, ends, killed
from tests.support.releasing import REPOSITORY, Tiny, resolved, stages

pytestmark = pytest.mark.engine

LINE = workflows.line("builder nightly")
STEPS = [name for name, _ in nightly.STEPS]


# --- SIGKILL after every step, on tiny images -----------------------------------------------------


class RealWorld(World):
    """Publishes and promotes for real; `images` are what a build of each commit gives."""

    def __init__(self, home: Path, repository: str) -> None:
        super().__init__(home)
        self.repository = repository
        self.images: dict[str, Receipt] = {}

    def case(self, **changes: object) -> nightly.Case:
        made = super().case()
        real = replace(
            made.stages,
            proving=Proving(build=self.build, audit=self.audit, smoke=self.smoke),
            publish=night_release.publisher(stages()),
            promote=night_release.promote,
        )
        request = replace(made.request, repository=self.repository)
        return replace(made, stages=real, request=request, **changes)

    def build(self, candidate, order, results, *_):
        self.did("build")
        made = replace(
            self.images[order.ref],
            commit=order.ref,
            build_number=candidate.forks["tiny"].build_number,
            dockerfile_sha256=render.render(candidate, "tiny").sha256,
            created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        )
        receipt.write(made, results)
        return made


@pytest.fixture
def world(
    tiny_pins: Path,
    repository: Repository,
    registry: DockerRegistry,
    private_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> RealWorld:
    monkeypatch.setenv("DOCKER_CONFIG", str(private_cache))
    first = repository.git("rev-parse", "HEAD~2")
    bump.bump(tiny_pins, bump.Request(to=first), None, Recorder())
    return RealWorld(tiny_pins.parent, f"{registry.host}/{REPOSITORY}")


@pytest.mark.parametrize("step", STEPS)
def test_a_kill_after_a_step_leaves_the_tag_on_a_whole_image_that_had_passed(
    world: RealWorld, tiny_images: Tiny, repository: Repository, registry: DockerRegistry, step: str
):
    commits = [repository.git("rev-parse", "HEAD")]
    world.images[commits[0]] = tiny_images.image(b"old")
    (old,) = nights.run([world.case()], ends(), Recorder()).nights
    commits.append(repository.commit("newer", notes_md="newer"))
    world.images[commits[1]] = tiny_images.image(b"new")
    following = [f"before:{name}" for name in STEPS[1:]] + ["in:tell"]
    killed(world, following[STEPS.index(step)])
    there = resolved(registry, "tiny")
    promoted = step in {"promote", "bump"}
    (name,) = [one for one in record.read_index(world.record).releases if of(world, one) == there]
    assert (name == old.release) == (not promoted)
    assert "contract" in record.read_release(world.record, name).proven
    report = nights.run([world.case()], ends(), Recorder())
    assert [(one.outcome, one.commit) for one in report.nights] == [("promoted", commits[1])]
    assert (
        resolved(registry, "tiny") == of(world, report.nights[0].release) != of(world, old.release)
    )
    assert world.done.count("build") == 2


def of(world: RealWorld, name: str) -> str:
    return record.read_release(world.record, name).digest


# --- Real nights, by the workflow's line ----------------------------------------------------------


@dataclass(frozen=True)
class Nights:
    """A checkout with pins.toml, its remote, the fork, a registry, and what GitHub was told."""

    checkout: Path
    remote: Repository
    fork: Repository
    registry: DockerRegistry
    api: Api

    def run(self, variant: str, *, ccache: bool = False) -> "tuple[int, str, str]":
        """One night by the workflow's line: exit code, stderr, summary."""
        summary = self.checkout / "summary.md"
        summary.unlink(missing_ok=True)
        # A ccache of its own would be cold, and mainline-cpu take minutes.
        line = LINE if ccache else LINE.replace(" --ccache-dir .ccache", "")
        made = workflows.run(
            line,
            self.checkout,
            VARIANT=variant,
            REF="",
            PINNED="",
            KEYLESS="",
            REPOSITORY=f"{self.registry.host}/{REPOSITORY}",
            GITHUB_TOKEN="a-token-of-a-test",  # noqa: S106
            GITHUB_REPOSITORY="me/images",
            GITHUB_API_URL=self.api.url,
            GITHUB_STEP_SUMMARY=str(summary),
        )
        return made.returncode, made.stdout + made.stderr, summary.read_text()

    def night(self, variant: str) -> record.Night:
        """The newest, as the branch of the record has it on the remote."""
        listed = self.remote.git("ls-tree", "--name-only", "record:nights").split()
        last = [name for name in listed if variant in name][-1]
        shown = json.loads(self.remote.git("show", f"record:nights/{last}"))
        return record.Night(
            **{**shown, "steps": [record.NightStep(**one) for one in shown["steps"]]}
        )


def nights_of(
    folder: Path, text: str, fork: Repository, registry: DockerRegistry, api: Api
) -> Nights:
    remote = Repository(folder / "remote")
    (remote.path / "pins.toml").write_text(text)
    (remote.path / ".gitignore").write_text("/build/\n")
    remote.commit("pins")
    remote.git("clone", "--quiet", str(remote.path), str(folder / "checkout"))
    return Nights(folder / "checkout", remote, fork, registry, api)


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    with github_api.serve() as served:
        served.on("/repos/me/images", Answer(body=page("me/images")))
        yield served


@pytest.fixture
def tiny(
    tmp_path: Path, tiny_pins: Path, repository: Repository, registry: DockerRegistry, api: Api
) -> Nights:
    first = repository.git("rev-parse", "HEAD~2")
    bump.bump(tiny_pins, bump.Request(to=first), None, Recorder())
    return nights_of(tmp_path / "home", tiny_pins.read_text(), repository, registry, api)


@pytest.mark.usefixtures("private_cache", "tiny_tags")
def test_the_whole_line_of_the_workflow_with_an_image_that_serves_nothing(tiny, registry):
    code, said, summary = tiny.run("tiny", ccache=True)
    night = tiny.night("tiny")
    assert (code, night.outcome, night.failed_step) == (1, "failed", "audit"), said
    assert registry.digest(REPOSITORY, "tiny") is None
    assert (tiny.checkout / ".ccache").is_dir()
    (issue,) = tiny.api.threads["issues"]
    assert "tiny: audit failed" in issue["body"]
    assert "### tiny: audit failed" in summary
    assert "a-token-of-a-test" not in said + summary


@pytest.mark.usefixtures("private_cache", "tiny_tags")
def test_after_enough_nights_the_issue_has_what_a_bisect_found(tiny):
    with (tiny.checkout / "pins.toml").open("a") as text:
        text.write("\n[policy.nightly]\nbisect_after = 1\n")
    tiny.fork.commit("still fine", notes_md="fine")
    bad = tiny.fork.commit("does not build", server_cpp="int main() { return x; }\n")
    tiny.fork.commit("nor does this", notes_md="nor")
    code, said, summary = tiny.run("tiny")
    assert code == 1, said
    # From the pin, for want of a night that passed, to the candidate.
    found = f"The build fails since {bad[:9]}"
    assert found in tiny.night("tiny").bisect
    issues = [one for one in tiny.api.threads["issues"] if "Nightly images of tiny" in one["title"]]
    assert found in issues[-1]["body"]
    assert found in summary


# The nights of mainline-cpu: two that pass, one that does not build, and the way back.

BROKEN = "int broken = undeclared_thing;\n"


@dataclass(frozen=True)
class Act:
    """One night and what the world was after it. `served` is the version that a client gets."""

    commit: str
    code: int
    said: str
    night: record.Night
    digest: str | None
    served: str


class Client(threading.Thread):
    """Somebody who has the floating tag alone: pulls and serves whatever it stands for, at once.

    `answers` are what the server of each digest said; `gaps` counts the looks that found no image.
    """

    def __init__(self, registry: DockerRegistry, model: Path) -> None:
        super().__init__()
        self._registry, self._model = registry, model
        self._over = threading.Event()
        self.answers: dict[str, str] = {}
        self.gaps = 0

    def run(self) -> None:
        while not self._over.wait(0.05):
            digest = self._registry.digest(REPOSITORY, "mainline-cpu")
            if digest is None:
                self.gaps += 1
            elif digest not in self.answers:
                self.answers[digest] = self._chat()

    def end(self) -> None:
        self._over.set()
        self.join()

    def _chat(self) -> str:
        engine = docker.from_env()
        image = engine.images.pull(f"{self._registry.host}/{REPOSITORY}", tag="mainline-cpu")
        target = ImageTarget("client", str(image.id), engine, {})
        words = server_args(Profile("client", 1, 2048), Kv("q4_0", "q4_0"), frozenset())
        with target.serve(words, self._model) as serving:
            while not _ready(serving.url):
                assert serving.state().running, serving.log()
            chat = {"messages": [{"role": "user", "content": "?"}], "max_tokens": 8}
            answer = requests.post(f"{serving.url}/v1/chat/completions", json=chat, timeout=60)
        return str(answer.json()["choices"][0]["message"]["content"])


def _ready(url: str) -> bool:
    with contextlib.suppress(requests.RequestException):
        return requests.get(f"{url}/health", timeout=5).status_code == 200
    return False


@dataclass(frozen=True)
class Story:
    """What happened to those who follow the floating tag. `verified`: what `verify` said of it."""

    first: Act
    second: Act
    broken: Act
    back: str | None
    nights: Nights
    client: Client
    verified: "subprocess.CompletedProcess[str]"


@pytest.fixture(scope="module")
def story(
    tmp_path_factory: pytest.TempPathFactory,
    engine: DockerClient,
    mainline_cpu_receipt: dict[str, object],  # noqa: ARG001
    registry_program: Path,
    api: Api,
) -> Iterator[Story]:
    """Three nights and a rollback. The receipt is asked for so that ccache is warm."""
    folder = tmp_path_factory.mktemp("nights")
    fork = Repository(folder / "fork")
    text = (ROOT / "pins.toml").read_text()
    source = pins.parse(text).sources["llama-cpp-python"]
    shutil.copytree(sdist.tree(source, Silent()), fork.path, symlinks=True, dirs_exist_ok=True)
    # As a git host does: else a look at the history brings every file.
    fork.git("config", "uploadpack.allowFilter", "true")
    first = commit(fork, "as the package has it")
    text = text.replace("https://github.com/ggml-org/llama.cpp", fork.url)
    text = with_pin(text, "mainline", Pin(first, 1, datetime.now(UTC).replace(microsecond=0)))
    with (
        docker_registry.serve(registry_program, folder / "registry") as registry,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.setenv("DOCKER_CONFIG", str(folder / "docker"))
        told = nights_of(folder, text, fork, registry, api)
        client = Client(registry, scripted_model(folder))
        try:
            first = act(engine, told, commit(fork, "a change", "// a change\n"))
            client.start()
            second = act(engine, told, commit(fork, "another", "// another\n"))
            broken = act(engine, told, commit(fork, "a bad one", BROKEN))
            file = told.checkout / "pins.toml"
            tag = f"{registry.host}/{REPOSITORY}:mainline-cpu"
            kept = told.checkout / "build" / "record"
            verified = builder("verify", tag, "--record", kept, "--pins", file)
            builder("rollback", "mainline-cpu", "--pins", file)
            back = registry.digest(REPOSITORY, "mainline-cpu")
            client.end()
            yield Story(first, second, broken, back, told, client, verified)
        finally:
            if client.is_alive():
                client.end()
            forget(engine, registry.host, fork)


def act(engine: DockerClient, told: Nights, at: str) -> Act:
    code, said, _ = told.run("mainline-cpu")
    digest = told.registry.digest(REPOSITORY, "mainline-cpu")
    served = ""
    if digest:
        pulled = engine.images.pull(f"{told.registry.host}/{REPOSITORY}", tag="mainline-cpu")
        output = engine.containers.run(pulled, ["--version"], remove=True, stderr=True)
        served = output.decode()
    return Act(at, code, said, told.night("mainline-cpu"), digest, served)


def commit(fork: Repository, what: str, more: str = "") -> str:
    """A commit in which one file of the server has some more at its end."""
    with (fork.path / "tools" / "server" / "server.cpp").open("a") as file:
        file.write(more)
    fork.git("add", "--all", "--force")
    fork.git("commit", "--quiet", "--message", what)
    return fork.git("rev-parse", "HEAD")


def forget(engine: DockerClient, host: str, fork: Repository) -> None:
    """Remove the names that these nights gave to images."""
    ours = [sha[:9] for sha in fork.git("rev-list", "HEAD").split()]
    for image in engine.images.list():
        for name in [*image.tags, *(image.attrs["RepoDigests"] or [])]:
            built = name.startswith("turboquant:mainline-cpu-b") and any(o in name for o in ours)
            if built or name.startswith(f"{host}/"):
                # The last tag takes the digest's name with it.
                with contextlib.suppress(ImageNotFound):
                    engine.images.remove(name)


def test_a_fresh_candidate_is_published_and_promoted(story):
    night = story.first.night
    assert (story.first.code, night.outcome) == (0, "promoted"), story.first.said
    assert {one.name: one.status for one in night.steps} == dict.fromkeys(STEPS, "ok")
    assert story.first.commit[:9] in story.first.served


def test_the_next_one_takes_the_tag_over(story):
    assert story.second.night.outcome == "promoted", story.second.said
    assert story.second.digest != story.first.digest
    assert story.second.commit[:9] in story.second.served


def test_only_what_changed_was_compiled(story):
    # The changed file, and the one that names the commit.
    assert story.second.night.ccache["misses"] <= 4


def test_a_broken_candidate_leaves_the_tag_where_it_was(story):
    night = story.broken.night
    assert (story.broken.code, night.failed_step) == (1, "build"), story.broken.said
    assert "undeclared_thing" in night.steps[-1].detail
    assert story.broken.digest == story.second.digest
    assert story.broken.served == story.second.served


def test_a_rollback_restores_the_release_before(story):
    assert story.back == story.first.digest


def test_a_client_with_the_floating_tag_alone_is_served_at_every_moment(story):
    assert story.client.answers == {story.first.digest: "OK", story.second.digest: "OK"}
    assert story.client.gaps == 0


def test_what_was_published_is_what_it_says_it_is(story):
    assert story.verified.returncode == 0, story.verified.stdout + story.verified.stderr


def test_the_pull_request_moves_the_pin_to_the_last_that_passed(story):
    pulls = [one for one in story.nights.api.threads["pulls"] if "mainline" in one["head"]]
    assert [one["title"] for one in pulls] == [f"mainline: pin {story.second.commit[:9]}"]
    shown = story.nights.remote.git("show", "builder/bump-mainline:pins.toml")
    assert pins.parse(shown).forks["mainline"].commit == story.second.commit


def test_the_issue_of_the_fork_names_the_failure(story):
    issues = [one for one in story.nights.api.threads["issues"] if "mainline" in one["title"]]
    assert [one["state"] for one in issues] == ["open"]
    assert "undeclared_thing" in issues[0]["body"]


def test_the_record_on_its_branch_has_both_releases_and_what_they_proved(story):
    remote = story.nights.remote
    listed = remote.git("ls-tree", "--name-only", "record:releases").split()
    releases = [json.loads(remote.git("show", f"record:releases/{name}")) for name in listed]
    assert {one["commit"] for one in releases} == {story.first.commit, story.second.commit}
    assert all({"contract", "audit"} <= set(one["proven"]) for one in releases)
    assert "a-token-of-a-test" not in json.dumps(releases)
