"""What `builder doctor --fix` will do here: a plan made from the machine's facts, without effects.

Only packages of the machine's own distribution and mirror are used. Debian 12 is the odd one: its
docker.io is 20.10, too old for named contexts. The engine packages of Debian 13 run there, all but
runc, which needs a newer C library. They are unpacked into a folder of ours, where they cannot
clash with a packaged file.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from builder.common.errors import EngineError
from builder.engine import facts

HOME = Path("/opt/turboquant-builder")
"""Everything that is not packaged lies here."""

ENGINE = HOME / "engine"
LOG = Path("/var/log/turboquant-builder-dockerd.log")
SUCCESSOR = ("bookworm", "trixie")
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

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
_ENGINE_PACKAGES = ("docker.io", "docker-cli", "containerd", _PLUGIN, "tini")
_TOOLS = ("git", "mmdebstrap")
_COMMANDS = ("docker", *_TOOLS, "iptables", "runc")
_SYSTEMD = Path("/run/systemd/system")


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
            f"download {' '.join(self.packages)} of Debian {SUCCESSOR[1]} from this machine's "
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
    path = f"{os.environ['PATH']}:{SYSTEM_PATH}"
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
    wanted += _tools(machine)
    if "mmdebstrap" in wanted and machine.distribution.id != "debian":
        wanted.append("debian-archive-keyring")
    packages = tuple(dict.fromkeys(wanted))
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
