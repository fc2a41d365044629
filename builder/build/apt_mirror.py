"""The Debian mirror of this machine's apt: what is built may ask it, and no image names it.

A mirror's address may hold a login, and it is the name of a machine inside somebody's network.
"""

import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from builder.common.redaction import redacted
from builder.model.pins import BaseImage, Bootstrap, Bootstraps

NEUTRAL = "http://ftp.debian.org/debian"
"""The mirror that images name: https://www.debian.org/mirror/list"""


@dataclass(frozen=True, slots=True)
class Mirror:
    """`address` has no login; `given` is what apt was given."""

    address: str
    given: str = field(repr=False)

    @property
    def login(self) -> str:
        """The login as a line of apt_auth.conf(5), or empty."""
        parts = urlsplit(self.given)
        if parts.username is None:
            return ""
        user, password = unquote(parts.username), unquote(parts.password or "")
        return f"machine {self.address} login {user} password {password}\n"


def find() -> Mirror | None:
    """The mirror that apt uses here; None where mmdebstrap's default must do.

    From `apt-get indextargets`, whose fields apt-get(8) lists.
    """
    if shutil.which("apt-get") is None:
        return None
    form = "$(CREATED_BY) $(LABEL) $(REPO_URI)"
    result = subprocess.run(
        ["apt-get", "indextargets", "--format", form], capture_output=True, text=True, check=False
    )
    rows = [line.split(" ") for line in result.stdout.splitlines()]
    given = [row[2] for row in rows if row[:2] == ["Packages", "Debian"]][:1]
    return Mirror(redacted(given[0]), given[0]) if given else None


def neutral(recipe: Bootstrap) -> str:
    """The sources.list of a bootstrapped image."""
    return _line(NEUTRAL, recipe)


def secrets(
    images: list[BaseImage], recipes: Bootstraps | None, folder: Path
) -> Mapping[str, Path]:
    """The sources.list that each stage on a bootstrapped image is built with, as secrets.

    Files of this folder that nobody else may read. A secret is there while a step runs, and in no
    layer. None where the image's own names the mirror already.
    """
    mirror = find()
    if mirror is None or recipes is None or mirror.given.rstrip("/") == NEUTRAL:
        return {}
    made = {}
    for image in images:
        if image.origin == "bootstrap":
            recipe = recipes.devel if image.role == "devel" else recipes.runtime
            name = f"{image.role}-apt-sources"
            made[name] = private(folder / name, _line(mirror.given, recipe))
    return made


def private(file: Path, text: str) -> Path:
    """A new file that only this user may read."""
    file.touch(mode=0o600, exist_ok=False)
    file.write_text(text, encoding="utf-8")
    return file


def _line(address: str, recipe: Bootstrap) -> str:
    return f"deb {address} {recipe.suite} {' '.join(recipe.components)}\n"
