"""Base images from a Debian mirror, for machines that no image hub answers."""

import contextlib
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from builder import engine, paths, render, toolkit
from builder.errors import EngineError, RemoteUnavailableError
from builder.model import Bootstrap
from builder.progress import Progress

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
    make = [
        "mmdebstrap",
        "--variant=minbase",
        f"--components={','.join(recipe.components)}",
        f"--include={','.join(recipe.packages)}",
        *(f"--dpkgopt=path-exclude={path}" for path in exclude),
        *hooks,
        recipe.suite,
        "-",
        *mirrors(),
    ]
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
        subprocess.run(["docker", "image", "rm", output], capture_output=True, check=False)
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


def mirrors() -> list[str]:
    """The Debian mirror that this machine's apt uses; empty where mmdebstrap's default must do.

    From `apt-get indextargets`, whose fields apt-get(8) lists.
    """
    if shutil.which("apt-get") is None:
        return []
    form = "$(CREATED_BY) $(LABEL) $(REPO_URI)"
    result = subprocess.run(
        ["apt-get", "indextargets", "--format", form], capture_output=True, text=True, check=False
    )
    rows = [line.split(" ") for line in result.stdout.splitlines()]
    return [row[2] for row in rows if row[:2] == ["Packages", "Debian"]][:1]
