"""The two images that a build starts from: from the hub by digest, a mirror, or bootstrapped."""

from typing import TYPE_CHECKING, Literal

from builder.build import bootstrap, render
from builder.common.errors import RemoteUnavailableError, UsageError
from builder.common.progress import Progress
from builder.engine import client as engine
from builder.model.pins import Base, BaseImage, Pins

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.images import Image

Role = Literal["devel", "runtime"]
ROLES: tuple[Role, Role] = ("devel", "runtime")


def parse_sets(values: list[str]) -> dict[Role, str]:
    """`--set devel=IMAGE` and `--set runtime=IMAGE` as a table.

    Raises UsageError for anything else.
    """
    chosen: dict[Role, str] = {}
    for value in values:
        name, equals, image = value.partition("=")
        role = next((r for r in ROLES if r == name), None)
        if role is None or not equals or not image:
            raise UsageError(
                f"--set {value}: is not devel=IMAGE or runtime=IMAGE",
                hint="for example --set devel=mirror.example.org/nvidia/cuda:12.6.3-devel",
            )
        chosen[role] = image
    return chosen


def choose(
    client: "DockerClient",
    pins: Pins,
    base_name: str,
    sets: dict[Role, str],
    progress: Progress,
) -> list[BaseImage]:
    """The devel and the runtime image of a base, each there to be built on.

    Raises RemoteUnavailableError when no registry answers and the base cannot be bootstrapped.
    """
    base = pins.bases[base_name]
    return [_choose(client, base_name, base, role, sets.get(role), progress) for role in ROLES]


def expected(
    client: "DockerClient", base: Base, sets: dict[Role, str]
) -> "list[tuple[Role, str, Image | None]]":
    """For each role what `choose` will take, and the engine's image where it is there already.

    No registry is asked: a pinned image that is not here may yet be replaced by a bootstrapped one.
    """
    found = []
    for role in ROLES:
        pinned = base.devel if role == "devel" else base.runtime
        names = [sets[role]] if role in sets else [pinned] if pinned else []
        if role not in sets and base.bootstrap is not None:
            recipe = base.bootstrap.devel if role == "devel" else base.bootstrap.runtime
            names.append(render.bootstrap_tag(recipe))
        here = [(name, image) for name in names if (image := engine.find_image(client, name))]
        found.append((role, *(here[0] if here else (names[0], None))))
    return found


def _choose(
    client: "DockerClient",
    base_name: str,
    base: Base,
    role: Role,
    mirror: str | None,
    progress: Progress,
) -> BaseImage:
    pinned = base.devel if role == "devel" else base.runtime
    if mirror is not None:
        return _set(client, role, mirror, pinned)
    if pinned is not None and _reachable(client, pinned, progress):
        return BaseImage(role, pinned, pinned.partition("@")[2], "hub")
    if base.bootstrap is None:
        raise RemoteUnavailableError(
            f"no registry answers for the {role} image of base {base_name}",
            why=str(pinned),
            hint=f"name a mirror of it with --set {role}=IMAGE, or another base with --base NAME",
        )
    recipe = base.bootstrap.devel if role == "devel" else base.bootstrap.runtime
    if pinned is not None:
        progress.warn(f"no image hub answers: the {role} image is made from Debian packages")
    tag, image_id = bootstrap.ensure(client, recipe, progress)
    return BaseImage(role, tag, image_id, "bootstrap")


def _set(client: "DockerClient", role: Role, mirror: str, pinned: str | None) -> BaseImage:
    """A mirror gives the pinned digest; an image that the engine holds is taken as it is."""
    name, at, digest = mirror.partition("@")
    if at:
        return BaseImage(role, mirror, digest, "set")
    local = engine.find_image(client, mirror)
    if local is not None:
        return BaseImage(role, mirror, str(local.id), "set")
    if pinned is None:
        raise UsageError(f"--set {role}={mirror}: the base has no digest to ask the mirror for")
    digest = pinned.partition("@")[2]
    return BaseImage(role, f"{name}@{digest}", digest, "set")


def _reachable(client: "DockerClient", reference: str, progress: Progress) -> bool:
    from docker.errors import APIError
    from requests import RequestException

    if engine.find_image(client, reference) is not None:
        return True
    progress.step(f"ask the registry for {reference.partition('@')[0]}")
    try:
        client.images.get_registry_data(reference)
    except (APIError, RequestException):
        return False
    return True
