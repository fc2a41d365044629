"""Who to be at a registry: from the environment, or from where `docker login` keeps it."""

import os
from dataclasses import dataclass, field

from builder.errors import UsageError

USER, PASSWORD = "BUILDER_REGISTRY_USER", "BUILDER_REGISTRY_PASSWORD"
"""The two variables of the environment. They hold for the registry that is published to."""


@dataclass(frozen=True, slots=True)
class Login:
    """A user's name and password, or a token in its place. Neither shows in a repr."""

    user: str = field(repr=False)
    password: str = field(repr=False)


def login(host: str) -> Login | None:
    """The login for a registry; None: nobody logged in there.

    From the environment, else ~/.docker/config.json (or $DOCKER_CONFIG) with its credential
    helpers. Raises UsageError when the store cannot be read.
    """
    if os.environ.get(USER) and os.environ.get(PASSWORD):
        return Login(os.environ[USER], os.environ[PASSWORD])
    import docker.auth
    from docker.errors import DockerException

    try:
        found = docker.auth.load_config().resolve_authconfig(None if host == "docker.io" else host)
    except DockerException as error:
        # Its text may quote the store, so only its kind is told.
        raise UsageError(
            f"Docker's credential store does not answer for {host} ({type(error).__name__})",
            hint=f"`docker login {host}`, or set {USER} and {PASSWORD}",
        ) from None
    if not found:
        return None
    user = found.get("username") or found.get("Username")
    password = found.get("password") or found.get("Password")
    if not user or not password:
        raise UsageError(
            f"the login for {host} is an identity token, which builder cannot use",
            hint=f"set {USER} and {PASSWORD}",
        )
    return Login(str(user), str(password))
