"""Performs the plan of `builder doctor --fix`: exactly that, each action announced before it."""

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections import deque
from pathlib import Path

from filelock import FileLock

from builder.common.errors import EngineError, UsageError
from builder.common.progress import Progress
from builder.doctor.install_plan import (
    ENGINE,
    HOME,
    LOG,
    SUCCESSOR,
    SYSTEM_PATH,
    Action,
    Install,
    Link,
    Start,
    Unpack,
)
from builder.engine import client as engine
from builder.engine import facts

_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
# Without the option a mirror that does not answer is only a warning.
_UPDATE = ["apt-get", "-oAPT::Update::Error-Mode=any", "update"]
_LOCK = Path("/run/turboquant-builder-fix.lock")
_DOCKERD_PID = Path("/var/run/docker.pid")
_PID_FILES = {
    _DOCKERD_PID: "dockerd",
    Path("/var/run/docker/containerd/containerd.pid"): "containerd",
}
_START_S = 90
_TAIL = 12


def fix(actions: list[Action], progress: Progress) -> None:
    """Do what a plan says, each action announced before it is done, and look at the result.

    Raises UsageError without root or for an engine elsewhere, EngineError when a step fails or
    what is there in the end will not do. Without actions there is only the look.
    """
    if actions:
        _refuse(actions)
        with FileLock(_LOCK):
            for action in actions:
                progress.step(action.text)
                _perform(action, progress)
    _verify()


def _refuse(actions: list[Action]) -> None:
    if os.geteuid() != 0:
        raise UsageError(
            "only root may do what is missing here",
            why="\n".join(action.text for action in actions),
            hint="sudo builder doctor --fix",
        )
    host = facts.host()
    starts = any(isinstance(action, Start) for action in actions)
    if starts and host not in facts.STANDARD_HOSTS:
        raise UsageError(
            f"no engine answers at {host}",
            why="--fix starts one on this machine's usual socket, where nothing would look for it",
            hint="start that engine, or unset DOCKER_HOST and `docker context use default`",
        )


def _perform(action: Action, progress: Progress) -> None:
    match action:
        case Install(packages):
            _install(packages, progress)
        case Unpack(packages):
            _unpack(packages, progress)
        case Link(link, target):
            _link(link, target)
        case Start(service=True):
            _run(["systemctl", "start", "docker"], progress)
        case Start(dockerd):
            _start_process(dockerd, progress)


def _verify() -> None:
    found, buildx = facts.find_engine(), facts.find_buildx()
    if found.complaint:
        hint = facts.DENIED_FIX if found.denied else "`builder doctor` says what is missing"
        raise EngineError("no Docker engine answers", why=found.complaint, hint=hint)
    if not facts.at_least(found.version, facts.LOWEST_ENGINE):
        raise EngineError(
            f"the engine that answers is {found.version}: too old, and left alone",
            hint="stop it and remove its package, then `builder doctor --fix` again",
        )
    if not buildx.usable:
        raise EngineError(
            "the docker command finds no buildx that will do",
            why=buildx.complaint or f"it finds {buildx.version}, which is too old",
            hint="`docker info` names the plugin's path; remove a plugin in ~/.docker/cli-plugins",
        )


def _install(packages: tuple[str, ...], progress: Progress) -> None:
    try:
        _run(_UPDATE, progress)
    except EngineError as error:
        # One broken source of many need not matter: the installation shows whether it does.
        progress.warn(f"{error.what}: {error.why.splitlines()[-1] if error.why else ''}")
    options = ["--yes", "--no-install-recommends", "--no-remove", "-oDPkg::Lock::Timeout=120"]
    _run(["apt-get", "install", *options, *packages], progress)


def _unpack(packages: tuple[str, ...], progress: Progress) -> None:
    HOME.mkdir(mode=0o755, parents=True, exist_ok=True)
    for left in HOME.glob("new-*"):
        shutil.rmtree(left)
    # Beside its destination, so that a rename puts it there: never half a folder.
    with tempfile.TemporaryDirectory(prefix="new-", dir=HOME) as name:
        work = Path(name)
        apt = ["apt-get", *_private_apt(work, _sources(progress))]
        _run([*apt, *_UPDATE[1:]], progress)
        debs = work / "debs"
        debs.mkdir()
        _run([*apt, "download", *packages], progress, folder=debs)
        for deb in sorted(debs.glob("*.deb")):
            progress.detail(f"unpack {deb.name}")
            _run(["dpkg", "-x", str(deb), str(work / "engine")], progress)
        if ENGINE.exists():
            ENGINE.rename(work / "old")
        (work / "engine").rename(ENGINE)


def _sources(progress: Progress) -> list[str]:
    form = "$(CREATED_BY) $(ORIGIN) $(CODENAME) $(REPO_URI)"
    read = ["apt-get", "indextargets", "--format", form]
    answer = facts.ask(*read)
    if not successor_sources(answer.text):
        # An image without package lists does not know its own sources' origin yet.
        _run(_UPDATE, progress)
        answer = facts.ask(*read)
    lines = successor_sources(answer.text)
    if not lines:
        raise EngineError(
            f"/etc/apt names no mirror with Debian {SUCCESSOR[0]}",
            why=answer.text if answer.code else "",
            hint="add Debian to /etc/apt/sources.list, or install a Docker engine by hand",
        )
    return lines


def _private_apt(work: Path, lines: list[str]) -> list[str]:
    """Options that keep apt's proxies and credentials, yet show it these sources only."""
    sources = work / "sources.list"
    sources.write_text("\n".join(lines) + "\n", encoding="utf-8")
    for folder in ("lists/partial", "cache/archives/partial"):
        (work / folder).mkdir(parents=True)
    settings = {
        "Dir::Etc::SourceList": sources,
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::Etc::Preferences": "/dev/null",
        "Dir::Etc::PreferencesParts": "/dev/null",
        "Dir::State::Lists": work / "lists",
        "Dir::State::Status": "/dev/null",
        "Dir::Cache": work / "cache",
        "APT::Default-Release": "",
        "APT::Sandbox::User": "root",  # nobody else may enter the folder
        "Acquire::Languages": "none",
        "Acquire::AllowInsecureRepositories": "false",
        "APT::Get::AllowUnauthenticated": "false",
    }
    return [f"-o{key}={value}" for key, value in settings.items()]


def successor_sources(targets: str) -> list[str]:
    """The sources.list of the next release, from `apt-get indextargets` of this one.

    Each line of `targets` holds CREATED_BY, ORIGIN, CODENAME and REPO_URI. The updates and the
    security archive come along; backports do not, nor do discs.
    """
    here, following = SUCCESSOR
    lines = []
    for line in targets.splitlines():
        kind, origin, codename, address = [*line.split(), "", "", "", ""][:4]
        suffix = codename.removeprefix(here)
        known = codename.startswith(here) and suffix in {"", "-updates", "-security"}
        if known and (kind, origin) == ("Packages", "Debian") and "cdrom:" not in address:
            lines.append(f"deb [signed-by={_KEYRING}] {address} {following}{suffix} main")
    return list(dict.fromkeys(lines))


def _link(link: Path, target: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    if link.is_symlink() and (not link.exists() or link.resolve().is_relative_to(ENGINE)):
        link.unlink()
    try:
        link.symlink_to(target)
    except FileExistsError as error:
        raise EngineError(
            f"{link} exists, and does not do its work",
            hint="move it away, then `builder doctor --fix` again",
        ) from error


def _start_process(dockerd: Path, progress: Progress) -> None:
    # The package's own script may just have started one: that one is waited for.
    LOG.parent.mkdir(parents=True, exist_ok=True)
    LOG.touch()
    begin = LOG.stat().st_size
    for pid_file, name in _PID_FILES.items():
        if not _runs(pid_file, name):
            # dockerd would wait for whatever has the number now, or is dead and still listed.
            pid_file.unlink(missing_ok=True)
    process = None if _DOCKERD_PID.exists() else _spawn(dockerd)
    for second in range(_START_S):
        if _answers():
            progress.warn("nothing starts this engine after a reboot: run --fix again then")
            return
        if process is not None and process.poll() is not None:
            raise _start_failure(f"dockerd ended with exit code {process.returncode}", begin)
        progress.detail(f"waiting for the engine to answer, {second} s")
        time.sleep(1)
    if process is not None:
        process.terminate()
    raise _start_failure(f"dockerd does not answer after {_START_S} s", begin)


def _spawn(dockerd: Path) -> "subprocess.Popen[bytes]":
    """Start an engine that outlives this program and its terminal."""
    folders = [str(ENGINE / "usr/bin"), str(ENGINE / "usr/sbin"), os.environ["PATH"], SYSTEM_PATH]
    with LOG.open("ab") as log:
        return subprocess.Popen(
            [str(dockerd)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env=os.environ | {"PATH": ":".join(folders)},
            start_new_session=True,
        )


def _runs(pid_file: Path, name: str) -> bool:
    with contextlib.suppress(OSError, ValueError):
        pid = int(pid_file.read_text(encoding="ascii"))
        # A dead process that nobody waited for still has a name, but no program.
        return Path(f"/proc/{pid}/exe").readlink().name.startswith(name)
    return False


def _answers() -> bool:
    try:
        engine.connect(timeout_s=5)
    except EngineError:
        return False
    return True


def _start_failure(what: str, begin: int) -> EngineError:
    with LOG.open("rb") as file:
        file.seek(begin)
        why = log_tail(file.read().decode(errors="replace"))
    hint = f"the whole log: {LOG}"
    if "cgroup" in why:
        hint = f"/sys/fs/cgroup must be mounted and writable; {hint}"
    return EngineError(what, why=why, hint=hint)


def log_tail(text: str) -> str:
    """The last lines of dockerd's log that are more than news."""
    lines = [line for line in text.splitlines() if "level=info" not in line]
    return "\n".join(lines[-_TAIL:])


def _run(words: list[str], progress: Progress, folder: Path | None = None) -> None:
    """Run a command to its end, its lines as details.

    Raises EngineError with the last lines when it fails.
    """
    tail: deque[str] = deque(maxlen=_TAIL)
    name = " ".join(word for word in words if not word.startswith("-"))
    try:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            cwd=folder,
            env=os.environ | {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"},
        )
    except OSError as error:
        raise EngineError(f"{name}: cannot be run", why=str(error)) from error
    with process:
        for line in process.stdout or ():
            tail.append(line.rstrip())
            progress.detail(line.strip())
    if process.returncode != 0:
        why = "\n".join(tail)
        raise EngineError(
            f"{name}: failed, exit code {process.returncode}", why=why, hint=_hint(words, why)
        )


def _hint(words: list[str], output: str) -> str:
    if "dpkg --configure -a" in output:
        return "an installation was broken off: `sudo dpkg --configure -a`, then --fix again"
    if words[0] == "apt-get":
        return "does the mirror in /etc/apt answer? try `sudo apt-get update`"
    return ""
