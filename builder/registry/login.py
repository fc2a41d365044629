"""Finds the login for a registry: from the environment, or from where `docker login` keeps it."""

import contextlib
import os
import re
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field

from builder.common.errors import UsageError
from builder.registry import registry

USER, PASSWORD = "BUILDER_REGISTRY_USER", "BUILDER_REGISTRY_PASSWORD"
"""The environment's login. It is for one registry: that of `HOST`, else `own_registry`'s."""
HOST = "BUILDER_REGISTRY"
"""The variable with the registry, `host` or `host:port`, that the environment's login is for."""

_HOST = re.compile(r"[A-Za-z0-9.-]+(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?")
_own: ContextVar[str | None] = ContextVar("own", default=None)


@dataclass(frozen=True, slots=True)
class Login:
    """A user's name and password, or an identity token in their place. None shows in a repr."""

    user: str = field(repr=False)
    password: str = field(repr=False)
    identity: str = field(default="", repr=False)


@contextlib.contextmanager
def own_registry(repository: str | None) -> Iterator[None]:
    """Within, the environment's login is for the registry of this `host/name`, if `HOST` is unset.

    The repository comes from --to or the pins, which are the user's own, never from a record or an
    image's name. Of two, one within the other, the outer one holds. None: nothing is known.
    """
    if repository is None or _own.get() is not None:
        yield
        return
    before = _own.set(registry.image(repository).host)
    try:
        yield
    finally:
        _own.reset(before)


def login(host: str) -> Login | None:
    """The login for a registry; None: nobody logged in there.

    From the environment where its login is for this registry, else ~/.docker/config.json (or
    $DOCKER_CONFIG) with its credential helpers. Raises UsageError when the store cannot be read.
    """
    own = from_environment(host)
    return own if own is not None else _from_store(host)


def from_environment(host: str) -> Login | None:
    """The environment's login; None: there is none, or it is for another registry.

    Raises UsageError when `HOST` is not the name of a registry.
    """
    user, password = os.environ.get(USER), os.environ.get(PASSWORD)
    if not user or not password:
        return None
    named = os.environ.get(HOST) or _own.get()
    if named is None:
        return None
    if _HOST.fullmatch(named) is None:
        # Not quoted: somebody may have put a login into it.
        raise UsageError(
            f"{HOST} is not the name of a registry",
            why="it takes `host` or `host:port`, without https:// and without a path",
            hint=f"{HOST}=ghcr.io",
        )
    return Login(user, password) if _place(named) == _place(host) else None


def _place(host: str) -> tuple[str, str, int | None]:
    from builder.common import sessions

    return sessions.origin(registry.address(host.lower()))


def _from_store(host: str) -> Login | None:
    import docker.auth
    from docker.errors import DockerException

    from builder.registry import docker_config

    docker_config.require_readable()
    try:
        found = docker.auth.load_config().resolve_authconfig(None if host == "docker.io" else host)
    except DockerException as error:
        # Its text may quote the store, so only its kind is told.
        raise UsageError(
            f"Docker's credential store does not answer for {host} ({type(error).__name__})",
            hint=how_to(host),
        ) from None
    if not found:
        return None
    if found.get("IdentityToken"):
        return Login("", "", str(found["IdentityToken"]))
    user = found.get("username") or found.get("Username")
    password = found.get("password") or found.get("Password")
    if not user or not password:
        raise UsageError(f"Docker's login for {host} has no password", hint=how_to(host))
    return Login(str(user), str(password))


def how_to(host: str) -> str:
    """How to log in at a registry, as a hint."""
    if os.environ.get(USER) and os.environ.get(PASSWORD):
        return f"`docker login {host}`, or set {HOST}={host}: {USER} is for that registry only"
    return f"`docker login {host}`, or set {HOST}={host}, {USER} and {PASSWORD}"
