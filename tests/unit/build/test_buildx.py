"""The command line of a build, and what its events say."""

import base64
import dataclasses
import json
import os
from pathlib import Path

import pytest

from builder.build import buildx
from builder.common.errors import BuilderError, BuildFailedError, EngineError
from builder.model.pins import CacheStats, Stage

ORDER = buildx.Order(
    dockerfile=Path("/scratch/Dockerfile"),
    source=Path("/tree"),
    context=Path("/scratch"),
    tags=["turboquant:x"],
    arguments={"COMMIT": "abc"},
    labels={"name": "value"},
)

VERTEX = {
    "digest": "sha256:1",
    "name": "[build 1/2] RUN  cmake",
    "started": "2026-11-20T11:00:00.123456789Z",
}
FAILED = VERTEX | {"error": "process did not complete successfully: exit code: 1"}
DONE = VERTEX | {"completed": "2026-11-20T11:00:02.623456789Z"}


def log(text: str) -> dict[str, object]:
    data = base64.b64encode(text.encode()).decode()
    return {"logs": [{"vertex": "sha256:1", "stream": 1, "data": data}]}


def command(**changes: object) -> list[str]:
    return buildx.command(dataclasses.replace(ORDER, **changes), Path("/scratch/id"))


def test_the_tree_is_a_named_context_and_never_the_main_one():
    words = command()
    assert "--build-context=source=/tree" in words
    assert words[-1] == "/scratch"


@pytest.mark.parametrize("name", ["default", "kube", "farm@remote"])
def test_any_buildx_builder_can_be_named(name):
    assert f"--builder={name}" in command(builder=name)


def test_no_builder_is_named_unless_asked_for():
    assert not [word for word in command() if word.startswith("--builder")]


@pytest.mark.parametrize("builder", [None, "kube"])
def test_what_users_chose_for_their_own_builds_is_not_for_ours(builder, tmp_path, monkeypatch):
    docker = tmp_path / "docker"
    docker.write_text("#!/bin/sh\nenv >&2\nexit 1\n")
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    chosen = {"BUILDX_BUILDER": "mine", "DOCKER_DEFAULT_PLATFORM": "linux/arm64"}
    for name, value in {**chosen, "DOCKER_CONTEXT": "elsewhere"}.items():
        monkeypatch.setenv(name, value)
    order = dataclasses.replace(ORDER, builder=builder)
    with pytest.raises(BuilderError):
        buildx.helper(order, [], tmp_path / "log")
    given = dict(line.partition("=")[::2] for line in (tmp_path / "log").read_text().splitlines())
    assert "DOCKER_DEFAULT_PLATFORM" not in given
    assert given.get("BUILDX_BUILDER") == (None if builder else "default")
    # A builder that is named may be one of any context.
    assert given["DOCKER_CONTEXT"] == ("elsewhere" if builder else "default")


def test_the_image_comes_home_whatever_builder_made_it():
    assert "--load" in command(builder="kube")


def test_an_archive_has_the_commits_times_and_stays_out_of_the_engine():
    words = command(archive=Path("/a,b/1.tar"))
    assert '--output=type=oci,"dest=/a,b/1.tar",rewrite-timestamp=true' in words
    assert "--load" not in words


def attested(scanner: str | None = None, **changes: object) -> list[str]:
    order = dataclasses.replace(ORDER, **changes)
    made = buildx.attested(order, Path("/scratch/x.tar"), scanner)
    return buildx.command(made, Path("/scratch/id"))


def test_what_buildkit_states_is_of_the_image_as_the_engine_has_it():
    words = attested()
    assert '--output=type=oci,"dest=/scratch/x.tar"' in words
    assert "--provenance=false" not in words
    assert set(command()) - set(words) == {"--load", "--provenance=false"}


def test_what_is_published_names_no_build_argument():
    """With mode=max it would name the proxies that buildx passes on, with their passwords."""
    asked = [word for word in attested() if word.startswith("--attest")]
    assert asked == ["--attest=type=provenance,mode=min"]


def test_the_sbom_is_made_by_the_scanner_that_is_named():
    assert "--attest=type=sbom,generator=scanner:1" in attested("scanner:1")


def test_nothing_is_built_anew_for_what_buildkit_states():
    words = attested(no_cache=True)
    assert "--no-cache" not in words
    # The step that was compiled anew is another one than the step that was not.
    assert "--build-arg=CCACHE_RECACHE=1" in words
    assert "--build-arg=CCACHE_RECACHE=1" not in attested()


def test_steps_of_a_build_alone_are_no_other_builds():
    assert "--add-host=x1.invalid:127.0.0.1" in command(alone="x1")
    assert not [word for word in command() if word.startswith("--add-host")]


def test_a_builder_without_archives_says_so():
    # buildx 0.13's words, on an engine without the containerd image store
    run = buildx._Run(text=["ERROR: OCI exporter is not supported for the docker driver."])
    assert isinstance(buildx._failure(run, Path("build.log")), buildx.ArchiveRefusedError)


def test_no_cache_means_ccache_too():
    assert {"--no-cache", "--build-arg=CCACHE_RECACHE=1"} <= set(command(no_cache=True))


@pytest.mark.parametrize("indent", [None, 2], ids=["an event a line", "an event over lines"])
def test_events_of_both_shapes_are_read(indent):
    events = [{"vertexes": [VERTEX]}, log("text")]
    text = "".join(json.dumps(event, indent=indent) + "\n" for event in events)
    assert list(buildx._events(iter(text.splitlines(keepends=True)))) == events


def test_text_between_events_is_kept():
    lines = [json.dumps(log("x")) + "\n", "ERROR: failed to solve\n"]
    assert list(buildx._events(iter(lines)))[1] == {"text": "ERROR: failed to solve"}


def follow(tmp_path: Path, progress, *events: dict, known=()) -> buildx._Run:
    run = buildx._Run(known)
    with (tmp_path / "log").open("w") as file:
        for event in events:
            buildx._follow(run, event, file, progress)
    return run


def test_a_stage_has_its_seconds(tmp_path, progress):
    run = follow(tmp_path, progress, {"vertexes": [VERTEX]}, {"vertexes": [DONE]})
    assert list(run.stages.values()) == [Stage("[build 1/2] RUN cmake", 2.5, cached=False)]


def test_a_cached_stage_says_so(tmp_path, progress):
    run = follow(tmp_path, progress, {"vertexes": [DONE | {"cached": True}]})
    assert next(iter(run.stages.values())).cached


def test_ccache_counts_hits_of_both_kinds_and_compilations(tmp_path, progress):
    run = follow(
        tmp_path,
        progress,
        log("ccache-stats   7 direct_cache_hit\nccache-stats 2 preprocessed_cache_hit\n"),
        log("ccache-stats   3 cache_miss\nccache-stats 9 local_storage_miss\n"),
    )
    assert buildx._ccache(run.statistics) == CacheStats(hits=9, misses=3)


def test_calls_that_ccache_cannot_take_are_counted_apart(tmp_path, progress):
    run = follow(
        tmp_path,
        progress,
        log("ccache-stats 4 cache_miss\nccache-stats 1 called_for_link\n"),
        log("ccache-stats 2 unsupported_compiler_option\nccache-stats 4 direct_cache_miss\n"),
    )
    assert buildx._ccache(run.statistics) == CacheStats(hits=0, misses=4, uncacheable=3)


def step(done: int, of: int, second: int) -> dict[str, object]:
    """A line of ninja's, so many seconds after the step VERTEX began."""
    entry = log(f"[{done}/{of}] Building x.o\n")
    entry["logs"][0]["timestamp"] = f"2026-11-20T11:00:{second:02d}.123456789Z"
    return entry


def test_a_pace_is_told_by_buildkits_clock(tmp_path, progress):
    events = [step(n, 20, n + 4) for n in range(1, 21)]
    run = follow(tmp_path, progress, {"vertexes": [VERTEX]}, *events)
    assert run.pace == [5, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24]


def test_the_progress_of_a_first_build_names_no_time(tmp_path, progress):
    follow(tmp_path, progress, {"vertexes": [VERTEX]}, step(1, 20, 5), step(10, 20, 14))
    assert progress.details == ["1 of 20: Building x.o", "10 of 20: Building x.o"]


def test_the_progress_of_a_later_build_names_the_time_left(tmp_path, progress):
    known = [[5.0, *(5.0 + 60 * tenth for tenth in range(1, 11))]]
    events = [{"vertexes": [VERTEX]}, step(1, 20, 5), step(10, 20, 45)]
    follow(tmp_path, progress, *events, known=known)
    assert progress.details == [
        "1 of 20, 10 min last time: Building x.o",
        "10 of 20, about 40 s left: Building x.o",
    ]


def test_nothing_compiled_has_no_ccache_figures(tmp_path, progress):
    assert buildx._ccache(follow(tmp_path, progress).statistics) is None


def test_the_whole_output_is_in_the_log(tmp_path, progress):
    follow(tmp_path, progress, {"vertexes": [VERTEX]}, log("one\ntwo\n"))
    assert (tmp_path / "log").read_text() == "=> [build 1/2] RUN cmake\none\ntwo\n"


def failure(tmp_path: Path, progress, *events: dict) -> BuilderError:
    run = follow(tmp_path, progress, {"vertexes": [VERTEX]}, *events, {"vertexes": [FAILED]})
    return buildx._failure(run, Path("build.log"))


def test_a_failure_has_the_first_error_its_place_and_the_log(tmp_path, progress):
    line = "/src/a.cpp:1:2: error: 'x' was not declared in this scope"
    found = failure(tmp_path, progress, log(f"[1/2] x\n{line}\nx.c:9:9: error: later\n"))
    assert found.what == "the build failed at a.cpp:1"
    assert found.why == line
    assert "build.log" in found.hint


def test_an_error_is_whole_though_it_came_in_two_events(tmp_path, progress):
    found = failure(tmp_path, progress, log("/src/a.c:1:2: err"), log("or: x is undefined\n"))
    assert found.why == "/src/a.c:1:2: error: x is undefined"


def test_what_another_step_says_is_not_why_this_one_failed(tmp_path, progress):
    other = log("E: from another step\n")
    other["logs"][0]["vertex"] = "sha256:2"
    found = failure(tmp_path, progress, other, log("a.c:1:2: error: x\n"))
    assert found.why == "a.c:1:2: error: x"


def test_a_compiler_that_was_killed_is_told_with_what_helps(tmp_path, progress):
    words = "FAILED: a.o\ncc\nc++: fatal error: Killed signal terminated program cc1plus\n"
    found = failure(tmp_path, progress, log(words))
    assert "more memory" in found.hint
    assert "--jobs" in found.hint
    assert not found.commits_fault


@pytest.mark.parametrize(
    "event",
    [
        {"vertexes": [VERTEX | {"error": "write /x: no space left on device"}]},
        log(
            "dpkg-deb: error: paste subprocess was killed by signal (Broken pipe)\n"
            "cannot copy extracted data: failed to write (No space left on device)\n"
        ),
        log("E: You don't have enough free space in /var/cache/apt/archives/.\n"),
    ],
    ids=["BuildKit", "dpkg", "apt"],
)
def test_a_full_disk_is_told_with_what_frees_it(tmp_path, progress, event):
    found = failure(tmp_path, progress, event)
    assert isinstance(found, BuildFailedError)
    assert "space" in found.why
    assert "docker builder prune" in found.hint


@pytest.mark.parametrize(
    "event",
    [
        log("/src/a.cpp:1:2: error: 'x' was not declared in this scope\n"),
        {"vertexes": [VERTEX | {"error": "process did not complete: exit code: 1"}]},
    ],
)
def test_what_the_tree_holds_is_to_blame(tmp_path, progress, event):
    assert failure(tmp_path, progress, event).commits_fault


@pytest.mark.parametrize(
    "event",
    [
        log("No space left on device\n"),
        log("c++: fatal error: Killed signal terminated program cc1plus\n"),
        log("nvcc error   : 'cicc' died due to signal 9 (Kill signal)\n"),
        {"vertexes": [VERTEX | {"error": "process did not complete: exit code: 137"}]},
        {"vertexes": [VERTEX | {"name": "[devel 2/2] RUN apt-get update && …", "error": "100"}]},
    ],
    ids=["disk", "cc1plus killed", "cicc killed", "shell killed", "packages"],
)
def test_what_the_machine_lacks_is_not_the_trees_fault(tmp_path, progress, event):
    assert not failure(tmp_path, progress, event).commits_fault


LOST = (
    "ERROR: failed to receive status: rpc error: code = Unavailable desc = error reading from "
    "server: EOF"
)
UNSOLVED = "ERROR: failed to solve: Unavailable: error reading from server: EOF"


@pytest.mark.parametrize(
    ("said", "killed"),
    [
        # dockerd 26.1.5 ended by SIGKILL, and by SIGTERM, in mid-build; buildx itself killed, of
        # which no step's end is seen
        *((said, killed) for said in (LOST, UNSOLVED) for killed in (False, True)),
        ("", False),
    ],
)
def test_an_engine_that_ends_is_not_the_trees_fault(tmp_path, progress, said, killed):
    step = VERTEX | {"error": "process did not complete successfully: exit code: 137"}
    events = [{"vertexes": [step if killed else VERTEX]}, {"text": said}]
    error = buildx._failure(follow(tmp_path, progress, *events), Path("build.log"))
    assert (type(error), error.exit_code) == (EngineError, 4)
    assert (said or "buildx was killed") in error.why


def test_a_step_that_the_engine_breaks_off_is_not_the_trees_fault(tmp_path, progress):
    # dockerd 26.1.5 ended by SIGTERM
    why = "failed to update the store state of sandbox: database not open"
    step = VERTEX | {"error": f"process did not complete successfully: {why}"}
    error = failure(tmp_path, progress, {"vertexes": [step]})
    assert (type(error), error.exit_code) == (EngineError, 4)
    assert why in error.why


def test_a_buildx_that_never_began_is_the_engines_failure(tmp_path, progress):
    run = follow(tmp_path, progress, {"text": "ERROR: Cannot connect to the Docker daemon"})
    failure = buildx._failure(run, Path("build.log"))
    assert isinstance(failure, EngineError)
    assert "Cannot connect" in failure.why
