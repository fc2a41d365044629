"""`builder doctor --fix`: installs the engine, buildx and tools that the distribution packages.

A plan is made from the machine's facts, without effects, and can be shown; performing it does
exactly that and nothing else. Only packages of the machine's own distribution and mirror are used.

Debian 12 is the odd one: its docker.io is 20.10, too old for named contexts. The engine packages
of Debian 13 run there, all but runc, which needs a newer C library. They are unpacked into a
folder of ours, where they cannot clash with a packaged file.
"""

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from builder import doctor_facts as facts
from builder import engine
from builder.errors import EngineError, UsageError
from builder.progress import Progress

HOME = Path("/opt/turboquant-builder")
"""Everything that is not packaged lies here."""

ENGINE = HOME / "engine"
LOG = Path("/var/log/turboquant-builder-dockerd.log")

_DOCKERD = ENGINE / "usr/sbin/dockerd"
_PLUGIN = "docker-buildx"
_LINKS = {
    "docker": (Path("/usr/local/bin/docker"), ENGINE / "usr/bin/docker"),
    _PLUGIN: (
        Path("/usr/local/lib/docker/cli-plugins/docker-buildx"),
        ENGINE / "usr/libexec/docker/cli-plugins/docker-buildx",
    ),
}
_PACKAGED_CLIENT = {
    # Distribution → the package with the docker command; named are those that are supported.
    ("debian", "bookworm"): "docker-cli",
    ("debian", "trixie"): "docker-cli",
    ("ubuntu", "noble"): "docker.io",
}
_OLD = ("debian", "bookworm")
_SUCCESSOR = ("bookworm", "trixie")
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_ENGINE_PACKAGES = ("docker.io", "docker-cli", "containerd", _PLUGIN, "tini")
_TOOLS = ("git", "mmdebstrap")
_COMMANDS = ("docker", *_TOOLS, "iptables", "runc")
# Without the option a mirror that does not answer is only a warning.
_UPDATE = ["apt-get", "-oAPT::Update::Error-Mode=any", "update"]
_SYSTEMD = Path("/run/systemd/system")
_LOCK = Path("/run/turboquant-builder-fix.lock")
_DOCKERD_PID = Path("/var/run/docker.pid")
_PID_FILES = {
    _DOCKERD_PID: "dockerd",
    Path("/var/run/docker/containerd/containerd.pid"): "containerd",
}
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_START_S = 90
_TAIL = 12


@dataclass(frozen=True, slots=True)
class Machine:
    """What a plan depends on.

    `dockerd` is an engine new enough to be started; `commands` holds those of docker, git,
    mmdebstrap, runc and iptables that are there; `unpacked` the packages that ENGINE holds already.
    """

    distribution: facts.Distribution
    answers: bool
    dockerd: Path | None
    commands: frozenset[str]
    buildx: bool
    unpacked: frozenset[str] = frozenset()
    systemd: bool = False
    podman: bool = False


@dataclass(frozen=True, slots=True)
class Install:
    """Packages of the distribution itself."""

    packages: tuple[str, ...]

    @property
    def text(self) -> str:
        """What will be done, in words."""
        return f"apt-get update; apt-get install {' '.join(self.packages)}"


@dataclass(frozen=True, slots=True)
class Unpack:
    """Packages of the next release, from this machine's own mirror, into ENGINE."""

    packages: tuple[str, ...]

    @property
    def text(self) -> str:
        """What will be done, in words."""
        return (
            f"download {' '.join(self.packages)} of Debian {_SUCCESSOR[1]} from this machine's "
            f"Debian mirror, check the signature, unpack into {ENGINE}"
        )


@dataclass(frozen=True, slots=True)
class Link:
    """A link from where a command is looked for to what was unpacked."""

    link: Path
    target: Path

    @property
    def text(self) -> str:
        """What will be done, in words."""
        return f"link {self.link} to {self.target}"


@dataclass(frozen=True, slots=True)
class Start:
    """An engine to start, by systemd or, without it, as a process that stays."""

    dockerd: Path
    service: bool

    @property
    def text(self) -> str:
        """What will be done, in words."""
        if self.service:
            return "systemctl start docker"
        return f"start {self.dockerd} in the background, log in {LOG}"


Action = Install | Unpack | Link | Start


def survey() -> Machine:
    """The facts of this machine that a plan depends on."""
    found, buildx = facts.find_engine(), facts.find_buildx()
    path = f"{os.environ['PATH']}:{_SYSTEM_PATH}"
    return Machine(
        distribution=facts.find_distribution(),
        answers=not found.complaint or found.denied,
        dockerd=_startable(path),
        commands=frozenset(name for name in _COMMANDS if shutil.which(name, path=path)),
        buildx=buildx.usable,
        unpacked=_unpacked(),
        systemd=_SYSTEMD.is_dir(),
        podman=found.podman or "podman" in buildx.complaint,
    )


def _startable(path: str) -> Path | None:
    for dockerd in (_DOCKERD, shutil.which("dockerd", path=path)):
        answer = facts.ask(str(dockerd), "--version")
        if dockerd and answer.code == 0 and facts.at_least(answer.text, facts.LOWEST_ENGINE):
            return Path(dockerd)
    return None


def _unpacked() -> frozenset[str]:
    files = {
        "docker.io": _DOCKERD,
        "containerd": ENGINE / "usr/bin/containerd",
        "docker-cli": _LINKS["docker"][1],
        _PLUGIN: _LINKS[_PLUGIN][1],
        "tini": ENGINE / "usr/bin/tini-static",
    }
    return frozenset(name for name, file in files.items() if file.is_file())


def plan(machine: Machine) -> list[Action]:
    """What is missing and how it comes here; empty when nothing is. Has no effect.

    Raises EngineError where nothing can be installed: an unknown distribution, podman.
    """
    wanted = [*_tools(machine), *_engine_packages(machine)]
    if not wanted and machine.answers:
        return []
    if machine.podman:
        raise EngineError(
            "the docker command or engine here is podman's imitation",
            why="images are built by BuildKit, which podman does not have",
            hint="remove podman-docker, unset DOCKER_HOST, then `builder doctor --fix` again",
        )
    key = (machine.distribution.id, machine.distribution.codename)
    if key not in _PACKAGED_CLIENT:
        if machine.answers and wanted == ["mmdebstrap"]:
            return []  # of use on Debian's kin only, and not needed where an image hub answers
        raise _unsupported(machine, wanted)
    actions: list[Action] = _old(machine) if key == _OLD else _current(machine)
    if not machine.answers:
        dockerd = machine.dockerd or (_DOCKERD if key == _OLD else Path("/usr/sbin/dockerd"))
        actions.append(Start(dockerd, service=machine.systemd and dockerd != _DOCKERD))
    return actions


def _unsupported(machine: Machine, wanted: list[str]) -> EngineError:
    release = ".".join(map(str, facts.LOWEST_ENGINE))
    if not wanted:
        hint = "start the engine by hand: `systemctl start docker`, or `dockerd` as root"
    else:
        hint = (
            f"install by hand: a Docker engine {release} or newer with its buildx plugin "
            f"{'.'.join(map(str, facts.LOWEST_BUILDX))} or newer, git; then `builder doctor`"
        )
    return EngineError(
        f"--fix does not know {machine.distribution.name}",
        why="it installs on Debian 12 (bookworm), Debian 13 (trixie) and Ubuntu 24.04 (noble)",
        hint=hint,
    )


def _tools(machine: Machine) -> list[str]:
    return [name for name in _TOOLS if name not in machine.commands]


def _engine_packages(machine: Machine) -> list[str]:
    """The Debian 13 names of what is missing between the docker command and the engine."""
    wanted = []
    if not machine.answers and machine.dockerd is None:
        wanted.append("docker.io")
    if "docker" not in machine.commands:
        wanted.append("docker-cli")
    if not machine.buildx:
        wanted.append(_PLUGIN)
    return wanted


def _current(machine: Machine) -> list[Action]:
    """Debian 13 and Ubuntu 24.04: everything is a package, and one call installs it."""
    client = _PACKAGED_CLIENT[machine.distribution.id, machine.distribution.codename]
    wanted = [client if name == "docker-cli" else name for name in _engine_packages(machine)]
    if "docker.io" in wanted:
        # Only recommended, yet needed for pulls and for the containers' network.
        wanted += ["ca-certificates", "iptables", "xz-utils"]
    packages = tuple(dict.fromkeys([*wanted, *_tools(machine)]))
    return [Install(packages)] if packages else []


def _old(machine: Machine) -> list[Action]:
    """Debian 12: the engine is unpacked, what it calls is installed."""
    wanted, tools = set(_engine_packages(machine)), _tools(machine)
    if not machine.answers and machine.dockerd in (None, _DOCKERD):
        tools += [name for name in ("runc", "iptables") if name not in machine.commands]
    if "docker.io" in wanted:
        tools += ["ca-certificates", "xz-utils"]
        wanted |= set(_ENGINE_PACKAGES)
    actions: list[Action] = [Install(tuple(tools))] if tools else []
    if not wanted <= machine.unpacked:
        # The folder is replaced as a whole, so it gets again what it has.
        held = wanted | machine.unpacked
        actions.append(Unpack(tuple(name for name in _ENGINE_PACKAGES if name in held)))
    if "docker" not in machine.commands:
        actions.append(Link(*_LINKS["docker"]))
    if not machine.buildx:
        actions.append(Link(*_LINKS[_PLUGIN]))
    return actions


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
            f"/etc/apt names no mirror with Debian {_SUCCESSOR[0]}",
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
    here, following = _SUCCESSOR
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
    folders = [str(ENGINE / "usr/bin"), str(ENGINE / "usr/sbin"), os.environ["PATH"], _SYSTEM_PATH]
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
