"""Services as files of systemd: units that run docker, quadlets that podman makes units of. Pure.

systemd.unit(5), systemd.service(5), podman-systemd.unit(5).
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from builder.common.errors import UsageError
from builder.engine import restrictions
from builder.serve.services import PREFIX, Mount, Service, conflicting

Format = Literal["systemd", "quadlet"]

# What the image's own HEALTHCHECK runs.
_HEALTHCHECK = "/usr/local/bin/healthcheck"

_DOCKER = "/usr/bin/docker"
_CREATE_NETWORK = restrictions.create_command(restrictions.SERVED)
_MOUNTABLE = re.compile(r"[\w./@+=-]+")
_PLAIN = re.compile(r"[\w./:@+=,-]+")

Section = tuple[str, list[tuple[str, str]]]

_NETWORK = f"{PREFIX}.network"
_QUADLET_NETWORK: list[Section] = [
    ("Network", [("NetworkName", restrictions.SERVED.name), ("Options", "isolate=true")])
]


def files(services: Sequence[Service], kind: Format) -> dict[str, str]:
    """File name → text, one for each service; quadlets share a network, which is one more.

    Raises UsageError for a path that no mount option can say.
    """
    for mount in (mount for one in services for mount in one.mounts):
        if not _MOUNTABLE.fullmatch(mount.source):
            raise UsageError(
                f"{mount.source!r} has a character that a unit's mount cannot have",
                hint="link the file under a name of letters, digits, and . _ - + @ =",
            )
    make: Callable[[Service, Sequence[Service]], list[Section]]
    make, suffix = (_quadlet, "container") if kind == "quadlet" else (_unit, "service")
    made = {f"{one.name}.{suffix}": _text(make(one, services)) for one in services}
    return made | ({_NETWORK: _text(_QUADLET_NETWORK)} if kind == "quadlet" else {})


def _unit(one: Service, services: Sequence[Service]) -> list[Section]:
    # `builder serve` has the shorter name for its own.
    name = f"{one.name}.service"
    run = [
        *(_DOCKER, "run", "--rm", "--name", name, "--publish", one.published),
        *("--network", restrictions.SERVED.name),
        *_each("--cap-drop", restrictions.DROPPED),
        *_each("--security-opt", restrictions.SECURITY),
        *("--log-driver", restrictions.LOG_DRIVER),
        *_each("--log-opt", [f"{key}={value}" for key, value in restrictions.LOG_OPTIONS.items()]),
        *_each("--mount", [_mount(mount, "readonly") for mount in one.mounts]),
        *_each("--env", [f"{key}={value}" for key, value in one.env.items()]),
        *(("--user", one.user) if one.user else ()),
        *_each("--group-add", [str(group) for group in one.groups]),
        *(("--gpus", "all") if one.gpu else ()),
        one.image,
        *one.command,
    ]
    # It has started when it is healthy. The loop ends with the server, too.
    wait = (
        f"until {_DOCKER} exec {name} {_HEALTHCHECK} 2>/dev/null; "
        "do kill -0 $MAINPID || exit 1; sleep 1; done"
    )
    engine = [("Requires", "docker.service"), ("After", "docker.service network-online.target")]
    service = [
        ("Type", "exec"),
        # One that is there already is no error.
        ("ExecStartPre", f"-{_command([_DOCKER, *_CREATE_NETWORK])}"),
        ("ExecStart", _command(run)),
        ("ExecStartPost", _command(["/bin/sh", "-c", wait])),
        ("ExecStop", _command([_DOCKER, "stop", name])),
        # Who starts it is the docker command, and what it leaves when killed would keep the card.
        ("ExecStopPost", f"-{_command([_DOCKER, 'rm', '--force', name])}"),
        ("SuccessExitStatus", "143"),
        ("Restart", "on-failure"),
        ("RestartSec", "5"),
        ("TimeoutStartSec", "15min"),
        ("TimeoutStopSec", "30"),
    ]
    wants = ("Wants", "network-online.target")
    return [
        ("Unit", [*_about(one, services), *engine, wants]),
        ("Service", service),
        ("Install", [("WantedBy", "multi-user.target")]),
    ]


def _each(option: str, values: Iterable[str]) -> list[str]:
    """The option before each of its values."""
    return [word for value in values for word in (option, value)]


def _quadlet(one: Service, services: Sequence[Service]) -> list[Section]:
    body = [
        ("Image", _value(one.image)),
        ("PublishPort", one.published),
        *(("Mount", _mount(mount, "ro=true")) for mount in one.mounts),
        *(("Environment", _word(f"{key}={value}")) for key, value in one.env.items()),
        *([("User", one.user)] if one.user else []),
        *(("GroupAdd", str(group)) for group in one.groups),
        *([("AddDevice", "nvidia.com/gpu=all")] if one.gpu else []),
        ("Network", _NETWORK),
        *(("DropCapability", name.lower()) for name in restrictions.DROPPED),
        ("NoNewPrivileges", "true"),
        # The journal has limits; what containers.conf may name in its place has none.
        ("LogDriver", "journald"),
        # podman drops the HEALTHCHECK of an image in OCI's own format.
        # Its own time limit only judges a check that has ended (podman 5.4).
        ("HealthCmd", f"timeout 5 {_HEALTHCHECK}"),
        ("HealthInterval", "5s"),
        ("HealthTimeout", "5s"),
        ("HealthRetries", "3"),
        # While it loads. A start period would excuse all that fails in it, healthy before or not.
        ("HealthStartupCmd", f"timeout 5 {_HEALTHCHECK}"),
        ("HealthStartupInterval", "1s"),
        ("HealthStartupTimeout", "5s"),
        ("HealthStartupRetries", "900"),
        # systemd then starts it anew.
        ("HealthOnFailure", "kill"),
        ("Notify", "healthy"),
        ("Exec", _command(one.command)),
    ]
    service = [
        ("SuccessExitStatus", "143"),
        ("Restart", "on-failure"),
        ("RestartSec", "5"),
        ("TimeoutStartSec", "15min"),
    ]
    return [
        ("Unit", _about(one, services)),
        ("Container", body),
        ("Service", service),
        ("Install", [("WantedBy", "multi-user.target default.target")]),
    ]


def _about(one: Service, services: Sequence[Service]) -> list[tuple[str, str]]:
    others = [other.name for other in conflicting(one, services)]
    names = [each.name for each in services]
    # The one that goes has stopped before the next begins; which names which does not matter, and
    # both ways would be a cycle.
    earlier = [name for name in others if names.index(name) < names.index(one.name)]
    lines = [("Description", f"llama-server, profile {one.profile}")]
    lines += [("Conflicts", f"{name}.service") for name in others]
    return lines + [("After", f"{name}.service") for name in earlier]


def _mount(mount: Mount, read_only: str) -> str:
    return f"type=bind,source={mount.source},target={mount.target},{read_only}"


def _command(words: Sequence[str]) -> str:
    return " ".join(_word(word) for word in words)


def _word(text: str) -> str:
    """One word of a command line for systemd: quoted, no specifier and no variable in it.

    Never an empty one: quadlet drops it and all that follow. pins.toml has none.
    """
    plain = _value(text).replace("$", "$$")
    if _PLAIN.fullmatch(text):
        return plain
    quoted = plain.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{quoted}"'


def _value(text: str) -> str:
    """Text without specifiers: systemd takes % for the beginning of one."""
    return text.replace("%", "%%")


def _text(sections: Sequence[Section]) -> str:
    head = "# Written by `builder unit` from the profiles of pins.toml; changes belong there.\n"
    return head + "".join(
        f"\n[{name}]\n" + "".join(f"{key}={value}\n" for key, value in lines)
        for name, lines in sections
    )
