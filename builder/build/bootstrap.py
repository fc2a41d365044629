"""Base images from a Debian mirror, for machines that no image hub answers."""

import contextlib
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from builder.build import apt_mirror, render
from builder.build import cuda_wheels as toolkit
from builder.common import paths
from builder.common.errors import EngineError, RemoteUnavailableError
from builder.common.progress import Progress
from builder.engine import client as engine
from builder.model.pins import Bootstrap

if TYPE_CHECKING:
    from docker import DockerClient

# What the toolkit needs besides its files: the driver's stub, and the loader's way to it.
_FINISH_TOOLKIT = f"""set -e
cd "$1{toolkit.HOME}/lib64/stubs"
echo {toolkit.HOME}/lib64 >"$1/etc/ld.so.conf.d/cuda.conf"
chroot "$1" cc -shared -nostdlib -Wl,-soname,libcuda.so.1 \
  -o {toolkit.HOME}/lib64/stubs/libcuda.so {toolkit.HOME}/lib64/stubs/libcuda.c
rm libcuda.c
chroot "$1" ldconfig"""

_PATH = f"{toolkit.HOME}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def ensure(client: "DockerClient", recipe: Bootstrap, progress: Progress) -> tuple[str, str]:
    """The tag and ID of the image made by this recipe, by mmdebstrap if the engine lacks it.

    Raises EngineError without mmdebstrap, RemoteUnavailableError when the mirror or the package
    index fails.
    """
    tag = render.bootstrap_tag(recipe)
    paths.cache().mkdir(parents=True, exist_ok=True)
    with FileLock(paths.cache() / "bootstrap.lock"):
        image = engine.find_image(client, tag)
        if image is not None:
            return tag, str(image.id)
        if shutil.which("mmdebstrap") is None:
            raise EngineError(
                f"{tag} cannot be made: mmdebstrap is not installed",
                why="no image hub answers, so the base comes from the machine's Debian mirror",
                hint="`builder doctor --fix`, or `apt-get install mmdebstrap`",
            )
        with _toolkit_hooks(recipe, progress) as hooks:
            progress.step(f"bootstrap {tag} from Debian packages")
            image_id = _make(tag, recipe, hooks, progress)
        # The name comes last: it never stands for half an image.
        client.images.get(image_id).tag(tag)
        return tag, image_id


@contextlib.contextmanager
def _toolkit_hooks(recipe: Bootstrap, progress: Progress) -> Iterator[list[str]]:
    """What mmdebstrap does to bring in the toolkit of the recipe's wheels; nothing without any."""
    if not recipe.wheels:
        yield []
        return
    # A fixed name, under the lock: whatever a kill leaves here, the next run removes.
    scratch = paths.cache() / "toolkit.part"
    try:
        shutil.rmtree(scratch, ignore_errors=True)
        home = scratch / Path(toolkit.HOME).name
        toolkit.lay_out(recipe.wheels, recipe.exclude, home, progress)
        yield [
            f"--customize-hook=copy-in {shlex.quote(str(home))} {Path(toolkit.HOME).parent}",
            f"--customize-hook={_FINISH_TOOLKIT}",
        ]
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _make(tag: str, recipe: Bootstrap, hooks: list[str], progress: Progress) -> str:
    # Documentation is of no use in a base, nor in what is built from it.
    exclude = ["/usr/share/doc/*", "/usr/share/man/*", *recipe.exclude]
    mirror = apt_mirror.find()
    with tempfile.TemporaryDirectory(prefix="turboquant-builder-") as folder:
        signed_in = _login_hooks(mirror, Path(folder))
        make = [
            "mmdebstrap",
            "--variant=minbase",
            f"--components={','.join(recipe.components)}",
            f"--include={','.join(recipe.packages)}",
            *(f"--dpkgopt=path-exclude={path}" for path in exclude),
            *hooks,
            *signed_in,
            f"--customize-hook=printf %s {shlex.quote(apt_mirror.neutral(recipe))} "
            '>"$1/etc/apt/sources.list"',
            recipe.suite,
            "-",
            *([mirror.address] if mirror else []),
        ]
        return _import(tag, recipe, make, progress)


def _login_hooks(mirror: apt_mirror.Mirror | None, folder: Path) -> list[str]:
    """How mmdebstrap's apt is signed in at the mirror: by a file, which no list of processes shows.

    It lies in the image while that is made, and is gone before the image is packed.
    """
    if mirror is None or not mirror.login:
        return []
    file = apt_mirror.private(folder / "login.conf", mirror.login)
    place = '"$1/etc/apt/auth.conf.d/90builder.conf"'
    return [
        f"--setup-hook=install -D -m600 {shlex.quote(str(file))} {place}",
        f"--customize-hook=rm -f {place}",
    ]


def _import(tag: str, recipe: Bootstrap, make: list[str], progress: Progress) -> str:
    """The image that the engine makes of what mmdebstrap writes."""
    # An imported image has no environment of its own.
    change = [f"--change=ENV PATH={_PATH}"] if recipe.wheels else []
    pipe = subprocess.PIPE
    # Straight into the engine: a CUDA base unpacks to gigabytes.
    with (
        subprocess.Popen(make, stdout=pipe, stderr=pipe) as source,
        subprocess.Popen(
            ["docker", "import", *change, "-"],
            stdin=source.stdout,
            stdout=pipe,
            stderr=subprocess.STDOUT,
            env=engine.command_environment(),
        ) as target,
    ):
        if source.stdout is not None:
            # The import holds it now; mmdebstrap must notice when the import ends early.
            source.stdout.close()
        try:
            told = _follow(source, progress)
            output = target.communicate()[0].decode(errors="replace").strip()
        except BaseException:
            # Asked, not killed: mmdebstrap unmounts and removes its folder on the way out.
            target.terminate()
            source.terminate()
            raise
    if target.returncode != 0:
        raise EngineError(f"{tag}: docker import failed", why=output)
    if source.returncode != 0:
        subprocess.run(
            ["docker", "image", "rm", output],
            capture_output=True,
            check=False,
            env=engine.command_environment(),
        )
        raise RemoteUnavailableError(
            f"{tag}: mmdebstrap failed",
            why="\n".join(told[-5:]),
            hint="does the Debian mirror of /etc/apt answer? try `apt-get update`",
        )
    return output


def _follow(process: "subprocess.Popen[bytes]", progress: Progress) -> list[str]:
    lines = []
    for raw in process.stderr or ():
        line = raw.decode(errors="replace").rstrip()
        lines.append(line)
        if line.startswith("I: "):
            progress.detail(line.removeprefix("I: "))
    return lines
