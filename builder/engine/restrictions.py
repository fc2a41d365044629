"""What containers may not do: the options of every one that builder starts or writes a file for.

None has a capability or gains one, and the log of each has an end. A stranger's image that is
smoked or audited gets no network but the way to and from this machine, no file that it can write
outside of memory, and limits of memory and processes.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from builder.common.errors import EngineError
from builder.engine.client import engine_errors
from builder.model.labels import LABEL

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.networks import Network as DockerNetwork

DROPPED = ("ALL",)
"""Capabilities that a container does without."""

SECURITY = ("no-new-privileges",)
"""So that no setuid program of the image gives any back."""

LOG_DRIVER = "json-file"
LOG_OPTIONS = {"max-size": "10m", "max-file": "3"}
"""The engine's default has no limit."""

SCRATCH = "/tmp"  # noqa: S108 - inside a container

_SCRATCH = "rw,noexec,nosuid,nodev,size=256m,mode=1777"
_MEMORY_SHARE = 0.9
_PROCESSES, _PROCESSES_PER_CPU = 512, 8
_FIRST_TO_GO = 1000
_CONFLICT = 409
ICC = "com.docker.network.bridge.enable_icc"
_PURPOSE = f"{LABEL}.network"


@dataclass(frozen=True, slots=True)
class Network:
    """A bridge of the engine whose containers do not reach each other.

    `internal`: nor anything else but this machine's own address on it.
    """

    name: str
    internal: bool


SERVED = Network("turboquant-served", internal=False)
"""Of servers that a user started: other containers do not reach them past their published port."""

SANDBOX = Network("turboquant-sandbox", internal=True)
"""Of strangers' servers: this machine asks them by their own address, as no port is published."""


def always() -> dict[str, Any]:
    """The options of every container, as docker's SDK has them."""
    from docker.types import LogConfig

    return {
        "cap_drop": list(DROPPED),
        "security_opt": list(SECURITY),
        "log_config": LogConfig(type=LOG_DRIVER, config=dict(LOG_OPTIONS)),
        # A login in the address of a proxy is nobody's in there.
        "use_config_proxy": False,
    }


def sandbox(info: dict[str, Any]) -> dict[str, Any]:
    """Those of a stranger's container, beside its network, on the engine of this `docker info`.

    The memory is nearly all of the machine's: a model is as large as it is, and the kernel ends the
    stranger's server before any other program. A thread of the server counts as a process, and it
    has some for each processor.
    """
    memory = int(info.get("MemTotal", 0) * _MEMORY_SHARE) or None
    return {
        "read_only": True,
        "tmpfs": {SCRATCH: _SCRATCH},
        "pids_limit": _PROCESSES + _PROCESSES_PER_CPU * int(info.get("NCPU", 0)),
        "mem_limit": memory,
        "memswap_limit": memory,
        "oom_score_adj": _FIRST_TO_GO,
    }


def reaches_containers(info: dict[str, Any]) -> bool:
    """Whether this machine reaches a container by its own address.

    A rootless engine and Docker Desktop keep their bridges in a network or machine of their own.
    """
    rootless = any(
        str(one).startswith("name=rootless") for one in info.get("SecurityOptions") or ()
    )
    return not rootless and info.get("OperatingSystem") != "Docker Desktop"


def join(client: "DockerClient", network: Network) -> str:
    """The network's name, once the engine has it.

    Raises EngineError when it cannot be made, or another of the name is there.
    """
    from docker.errors import APIError

    with engine_errors(f"make the network {network.name}"):
        found = _find(client, network)
        if found is None:
            try:
                found = client.networks.create(
                    network.name,
                    driver="bridge",
                    internal=network.internal,
                    options={ICC: "false"},
                    labels={_PURPOSE: network.name},
                )
            except APIError as error:
                # Another builder may have made it meanwhile.
                if error.status_code != _CONFLICT:
                    raise
                found = _find(client, network)
            else:
                return network.name
    attrs = found.attrs if found else {}
    closed = (attrs.get("Options") or {}).get(ICC) == "false"
    if bool(attrs.get("Internal")) != network.internal or not closed:
        raise EngineError(
            f"the engine's network {network.name} is not one that builder made",
            why="its containers may reach more than they should",
            hint=f"`docker network rm {network.name}`; builder makes it anew",
        )
    return network.name


def create_command(network: Network) -> list[str]:
    """The words after `docker` that make the same network."""
    words = ["--opt", f"{ICC}=false", "--label", f"{_PURPOSE}={network.name}"]
    internal = ["--internal"] if network.internal else []
    return ["network", "create", *internal, *words, network.name]


def _find(client: "DockerClient", network: Network) -> "DockerNetwork | None":
    found = client.networks.list(names=[f"^{network.name}$"])
    return next((one for one in found if one.name == network.name), None)
