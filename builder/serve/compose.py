"""Services as a compose file. Pure.

https://github.com/compose-spec/compose-spec/blob/main/spec.md
"""

from collections.abc import Sequence
from typing import Any

from builder.common.errors import UsageError
from builder.engine import restrictions
from builder.llama import container_paths
from builder.serve.services import PREFIX, Service, conflicting

_HEAD = """\
# Written by `builder compose` from the profiles of pins.toml; changes belong there.
# One at a time:  docker compose --profile {first} up --wait
# and the next:   docker compose --profile {first} down
"""


def to_yaml(services: Sequence[Service]) -> str:
    """The file's text: each service in a compose profile of its own name.

    Two services that hold the card are kept apart by their port, which the engine gives out once,
    before anything is started. Raises UsageError for two that do so and have different ports.
    """
    import yaml

    for one in services:
        for other in conflicting(one, services):
            if other.port != one.port:
                raise UsageError(
                    f"profiles.{other.profile}.port: {other.port} is not {one.port}, the port of "
                    f"profiles.{one.profile}",
                    why="both hold the GPU, and in a compose file only a port keeps two apart",
                    hint="give them one port, or name one of the two",
                )
    page = {"name": PREFIX, "services": {one.profile: _service(one) for one in services}}
    text = yaml.safe_dump(_escaped(page), sort_keys=False, allow_unicode=True, width=100)
    return _HEAD.format(first=services[0].profile) + text


def _service(one: Service) -> dict[str, Any]:
    return {
        "image": one.image,
        "profiles": [one.profile],
        "command": list(one.command),
        **({"environment": dict(one.env)} if one.env else {}),
        "ports": [
            {
                "target": container_paths.SERVER_PORT,
                "published": str(one.port),
                "host_ip": one.host,
                "protocol": "tcp",
            }
        ],
        "volumes": [
            {
                "type": "bind",
                "source": mount.source,
                "target": mount.target,
                "read_only": True,
                # a file that has gone must not become an empty folder
                "bind": {"create_host_path": False},
            }
            for mount in one.mounts
        ],
        **({"user": one.user} if one.user else {}),
        **({"group_add": [str(group) for group in one.groups]} if one.groups else {}),
        "cap_drop": list(restrictions.DROPPED),
        "security_opt": list(restrictions.SECURITY),
        "logging": {
            "driver": restrictions.LOG_DRIVER,
            "options": dict(restrictions.LOG_OPTIONS),
        },
        "restart": "on-failure",
        **({"deploy": _gpus()} if one.gpu else {}),
    }


def _gpus() -> dict[str, Any]:
    device = {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}
    return {"resources": {"reservations": {"devices": [device]}}}


def _escaped(value: Any) -> Any:  # noqa: ANN401 -- a tree of YAML
    """Compose takes `$` for the beginning of a variable."""
    match value:
        case str():
            return value.replace("$", "$$")
        case list():
            return [_escaped(one) for one in value]
        case dict():
            return {key: _escaped(one) for key, one in value.items()}
    return value
