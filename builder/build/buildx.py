"""`docker buildx build`: runs it, follows its events, keeps its log."""

import base64
import contextlib
import dataclasses
import json
import re
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from builder.build import failures as build_errors
from builder.build import plan
from builder.common.errors import (
    BuilderError,
    BuildFailedError,
    EngineError,
    RemoteUnavailableError,
)
from builder.common.progress import Progress, Silent
from builder.common.redaction import redacted
from builder.engine import client as engine
from builder.model.pins import CacheStats, Stage

_STEP = re.compile(r"\[(?P<n>\d+)/(?P<m>\d+)\] (?P<text>.*)")
_STATISTIC = re.compile(r"ccache-stats\s+(\d+) (\w+)")
_HITS = {"direct_cache_hit", "preprocessed_cache_hit"}
_COMPILED = {"cache_miss", "recache"}
# ccache 4.11, src/ccache/core/statistics.cpp: FLAG_UNCACHEABLE but for recache, and FLAG_ERROR.
_UNCACHEABLE = {
    "autoconf_test",
    "bad_compiler_arguments",
    "bad_input_file",
    "bad_output_file",
    "called_for_link",
    "called_for_preprocessing",
    "compile_failed",
    "compiler_check_failed",
    "compiler_produced_empty_output",
    "compiler_produced_no_output",
    "compiler_produced_stdout",
    "could_not_find_compiler",
    "could_not_use_modules",
    "could_not_use_precompiled_header",
    "disabled",
    "error_hashing_extra_file",
    "internal_error",
    "missing_cache_file",
    "modified_input_file",
    "multiple_source_files",
    "no_input_file",
    "output_to_stdout",
    "preprocessor_error",
    "unsupported_code_directive",
    "unsupported_compiler_option",
    "unsupported_environment_variable",
    "unsupported_source_language",
}
_ANEW = "CCACHE_RECACHE"
_COMPILES = re.compile(r"\[build \d+/\d+\] RUN ")
_BASE_IMAGE = re.compile(r"\[internal\] load metadata for (\S+)")
_BASE_HINT = "name a mirror with --set devel=IMAGE or runtime=IMAGE, or another base with --base"
# buildx 0.13's words for `--output type=oci` with the docker driver
_NO_ARCHIVE = re.compile(r"(?i)OCI exporter .*not supported")
# What buildx writes when the engine ends under it: gRPC's status 14 and its transport's words,
# seen with buildx 0.13.1 and dockerd 26.1.5 ended by SIGKILL and by SIGTERM.
_ENGINE_GONE = re.compile(
    r"code = Unavailable\b|: Unavailable: |error reading from server|transport is closing"
    r"|client connection (?:is closing|lost)|ttrpc: closed"
)
# A step's own end is its exit code. Any other end is the engine's, seen with SIGTERM: "failed to
# update the store state of sandbox: … database not open". A full disk has its own words.
_NO_END_OF_ITS_OWN = re.compile(
    r"did not complete successfully: (?!exit code: |.*no space left on device)"
)
_HINTS: dict[build_errors.Kind, str] = {
    "disk": "make room: `docker builder prune`, `docker image prune`, or a larger disk",
    "memory": "give the engine more memory or swap: one compiler takes up to 0.9 GB, and one "
    "a core runs; or let fewer run at once: --jobs N, without builder --build-arg JOBS=N",
}


@dataclass(frozen=True, slots=True)
class Order:
    """One build, as the command line of buildx says it.

    `archive`: the image goes into this OCI archive, its files' times no later than
    SOURCE_DATE_EPOCH, and not into the engine. `attestations` are options of --attest: they lie in
    the archive too, and the image is to the byte the one that the engine would get. `alone`: a word
    that no other build has. BuildKit lets builds that run at the same time share equal steps, with
    --no-cache too; not with this one. `secrets` are files that steps may read under a name: they
    are in no layer and no key of the cache.
    """

    dockerfile: Path
    source: Path
    context: Path
    tags: list[str]
    arguments: dict[str, str]
    labels: dict[str, str]
    no_cache: bool = False
    builder: str | None = None
    archive: Path | None = None
    attestations: tuple[str, ...] = ()
    alone: str | None = None
    secrets: Mapping[str, Path] = field(default_factory=dict)


class ArchiveRefusedError(EngineError):
    """The builder writes no OCI archives: Docker's own, without the containerd image store."""


@dataclass(slots=True)
class _Run:
    """What the events of one build have told so far; `known` are the paces of earlier ones."""

    known: Sequence[Sequence[float]] = ()
    names: dict[str, str] = field(default_factory=dict)
    started: dict[str, datetime] = field(default_factory=dict)
    pace: list[float] = field(default_factory=list)
    stages: dict[str, Stage] = field(default_factory=dict)
    statistics: dict[str, int] = field(default_factory=dict)
    output: dict[str, list[bytes]] = field(default_factory=dict)
    text: list[str] = field(default_factory=list)
    failed: str = ""
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Built:
    """A finished build; `ccache` is None, `pace` empty when nothing was compiled.

    `digest` is that of what was made, an image's manifest or an index; `config` that of the image's
    configuration, empty for an index. The engine's image ID is one of them, by its image store.
    """

    digest: str
    config: str
    stages: list[Stage]
    ccache: CacheStats | None
    pace: list[float]


def attested(order: Order, archive: Path, scanner: str | None) -> Order:
    """The build once more, into an archive with what BuildKit states of it.

    Every step is in BuildKit's cache after the build itself. `scanner` is the image that makes the
    SBOM, None: there is none.
    """
    # mode=max would name each build argument and step. buildx adds the proxies of Docker's
    # config.json to the arguments, and their passwords are published with them; JOBS and CCACHE_ID
    # are of the machine too. Seen with buildx 0.13.1 on Docker 26.1.5.
    wanted = ["type=provenance,mode=min"]
    wanted += [f"type=sbom,generator={scanner}"] if scanner else []
    # The argument, and not --no-cache: else the compile step is another one, or runs again.
    anew = {_ANEW: "1"} if order.no_cache else {}
    return dataclasses.replace(
        order,
        arguments=order.arguments | anew,
        no_cache=False,
        archive=archive,
        attestations=tuple(wanted),
    )


def command(order: Order, metadata: Path) -> list[str]:
    """The command line of a build that any buildx builder may run; digests go to `metadata`."""
    words = ["docker", "buildx", "build", "--progress=rawjson"]
    words += [f"--attest={one}" for one in order.attestations] or ["--provenance=false"]
    words += _output(order)
    words += [f"--builder={order.builder}"] if order.builder else []
    # BuildKit's --no-cache throws the step's cache mount away (moby/buildkit#1092); ccache is told
    # too, for builders that do not.
    words += ["--no-cache", f"--build-arg={_ANEW}=1"] if order.no_cache else []
    # A name in /etc/hosts while a step runs: part of the step, and of nothing that it makes.
    words += [f"--add-host={order.alone}.invalid:127.0.0.1"] if order.alone else []
    words += [f"--metadata-file={metadata}", f"--file={order.dockerfile}"]
    words += [f"--build-context=source={order.source}"]
    words += [f"--build-arg={name}={value}" for name, value in order.arguments.items()]
    words += [f"--label={name}={value}" for name, value in order.labels.items()]
    words += [f"--tag={tag}" for tag in order.tags]
    words += [f'--secret=id={name},"src={file}"' for name, file in order.secrets.items()]
    return [*words, str(order.context)]


def _output(order: Order) -> list[str]:
    if order.archive is None:
        return ["--load"]
    # With times rewritten it would be another image than the one that the statements must be of.
    times = "" if order.attestations else ",rewrite-timestamp=true"
    # The option is a line of CSV, and a folder may have a comma in its name.
    return [f'--output=type=oci,"dest={order.archive}"{times}']


def build(
    order: Order, log: Path, progress: Progress, known: Sequence[Sequence[float]] = ()
) -> Built:
    """Run the build; the whole log goes to `log`, the time left is told by the paces `known`.

    Raises BuildFailedError with the first error, EngineError when BuildKit was not reached,
    ArchiveRefusedError when the builder writes no archives.
    """
    metadata = order.dockerfile.with_name("build.json")
    run = _Run(known)
    _through(command(order, metadata), order.builder, run, log, progress)
    told = json.loads(metadata.read_text(encoding="utf-8"))
    return Built(
        digest=str(told.get("containerimage.digest", "")),
        config=str(told.get("containerimage.config.digest", "")),
        stages=list(run.stages.values()),
        ccache=_ccache(run.statistics),
        pace=run.pace if plan.whole(run.pace) else [],
    )


def helper(order: Order, words: list[str], log: Path) -> None:
    """Run a small build beside one ordered, with its builder and its main context.

    Raises as `build` does.
    """
    beginning = ["docker", "buildx", "build", "--progress=rawjson", "--provenance=false"]
    beginning += [f"--builder={order.builder}"] if order.builder else []
    _through([*beginning, *words, str(order.context)], order.builder, _Run(), log, Silent())


def _through(
    words: list[str], builder: str | None, run: _Run, log: Path, progress: Progress
) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    # Else every attestation names the remote of a git repository around the cache's folder:
    # https://docs.docker.com/build/building/variables/#buildx_git_info
    environment = engine.command_environment(builder) | {"BUILDX_GIT_INFO": "0"}
    with (
        log.open("w", encoding="utf-8") as file,
        subprocess.Popen(
            words,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        ) as process,
        _ended(process),
    ):
        for event in _events(process.stderr or iter(())):
            _follow(run, event, file, progress)
    if process.returncode != 0:
        raise _failure(run, log)


@contextlib.contextmanager
def _ended(process: "subprocess.Popen[str]") -> Iterator[None]:
    """Whatever happens here, buildx is told to cancel and has ended before it goes on."""
    try:
        yield
    except BaseException:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
        raise


def _events(lines: "IO[str] | Iterator[str]") -> Iterator[dict[str, Any]]:
    """buildx 0.13 spreads an event over lines, later ones write one a line; the rest is text."""
    held: list[str] = []
    for line in lines:
        if not held and not line.startswith("{"):
            yield {"text": line.rstrip()}
            continue
        held.append(line)
        if line.startswith("}") or (len(held) == 1 and line.rstrip() != "{"):
            with contextlib.suppress(json.JSONDecodeError):
                yield json.loads("".join(held))
            held.clear()


def _follow(run: _Run, event: dict[str, Any], log: IO[str], progress: Progress) -> None:
    if "text" in event:
        run.text.append(event["text"])
        log.write(redacted(event["text"]) + "\n")
    for vertex in event.get("vertexes") or []:
        _vertex(run, vertex, log, progress)
    for entry in event.get("logs") or []:
        data = base64.b64decode(entry["data"])
        run.output.setdefault(entry["vertex"], []).append(data)
        passed = _passed(run, entry)
        for line in data.decode(errors="replace").splitlines():
            _line(run, line, passed, log, progress)


def _passed(run: _Run, entry: dict[str, Any]) -> float:
    """Seconds from the start of a step to one of its log entries, by BuildKit's clock."""
    started = run.started.get(entry["vertex"])
    if started is None or "timestamp" not in entry:
        return 0.0
    return round((_time(entry["timestamp"]) - started).total_seconds(), 3)


def _vertex(run: _Run, vertex: dict[str, Any], log: IO[str], progress: Progress) -> None:
    digest, name = vertex["digest"], " ".join(vertex["name"].split())
    if "started" in vertex and digest not in run.names:
        run.names[digest] = name
        run.started[digest] = _time(vertex["started"])
        log.write(f"=> {redacted(name)}\n")
        if not name.startswith("[internal]"):
            progress.step(name if len(name) <= 100 else f"{name[:99]}…")  # noqa: PLR2004
    if "completed" in vertex and "started" in vertex and not name.startswith("[internal]"):
        seconds = (_time(vertex["completed"]) - _time(vertex["started"])).total_seconds()
        run.stages[digest] = Stage(name, round(seconds, 3), bool(vertex.get("cached")))
    if vertex.get("error") and "context canceled" not in vertex["error"] and not run.failed:
        run.failed, run.failure = digest, f"{name}\n{vertex['error']}"


def _line(run: _Run, line: str, passed: float, log: IO[str], progress: Progress) -> None:
    log.write(redacted(line) + "\n")
    step, statistic = _STEP.match(line), _STATISTIC.match(line)
    if step:
        done, of = int(step["n"]), max(1, int(step["m"]))
        plan.mark(run.pace, done, of, passed)
        outlook = plan.outlook(run.known, done / of, passed - run.pace[0])
        where = f"{done} of {of}, {outlook}" if outlook else f"{done} of {of}"
        progress.detail(f"{where}: {step['text']}")
    elif statistic:
        run.statistics[statistic[2]] = int(statistic[1])


def _time(text: str) -> datetime:
    # nanoseconds are more than fromisoformat takes
    return datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text))


def _ccache(statistics: dict[str, int]) -> CacheStats | None:
    if not statistics:
        return None
    hits = sum(count for name, count in statistics.items() if name in _HITS)
    compiled = sum(statistics.get(name, 0) for name in _COMPILED)
    return CacheStats(hits, compiled, sum(statistics.get(name, 0) for name in _UNCACHEABLE))


def _failure(run: _Run, log: Path) -> BuilderError:
    if any(_NO_ARCHIVE.search(line) for line in run.text):
        return ArchiveRefusedError(
            "the builder writes no OCI archives",
            why="\n".join(run.text[-5:]),
            hint="turn on the engine's containerd image store, or name a builder with --builder",
        )
    if not run.names:
        return EngineError(
            "BuildKit was not reached",
            why="\n".join(run.text[-5:]),
            hint="`builder doctor` says what is missing",
        )
    said = "\n".join(run.text[-5:])
    gone = _ENGINE_GONE.search(f"{run.failure}\n{said}") or _NO_END_OF_ITS_OWN.search(run.failure)
    if not run.failed or gone:
        # A step that failed names itself; where none did, nothing is known against the tree.
        return EngineError(
            "BuildKit ended in the middle of the build",
            why=said or run.failure.partition("\n")[2] or "buildx was killed",
            hint="see that the engine runs (`builder doctor`), and run it again: what was compiled "
            "is in its ccache. Out of memory is the usual reason; --jobs N needs less",
        )
    base = _BASE_IMAGE.match(run.failure)
    if base:
        return RemoteUnavailableError(
            f"{base[1]} cannot be had", why=run.failure.partition("\n")[2], hint=_BASE_HINT
        )
    # An event's data may begin and end within a line: the whole output is joined first.
    output = b"".join(run.output.get(run.failed, [])).decode(errors="replace")
    cause = build_errors.cause(output.splitlines(), run.failure.partition("\n")[2])
    hint = "; ".join(filter(None, [_HINTS.get(cause.kind), f"the whole log: {log}"]))
    what = f"the build failed at {cause.place}" if cause.place else "the build failed"
    return BuildFailedError(
        what,
        why=cause.text,
        hint=hint,
        log=str(log),
        commits_fault=cause.kind == "source"
        or (cause.kind == "other" and bool(_COMPILES.match(run.failure))),
    )
