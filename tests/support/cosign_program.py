"""The cosign that tests sign with: installed, or Debian 13's package unpacked."""

import os
import shutil
import subprocess
from pathlib import Path

from builder.common.progress import Silent
from builder.doctor import install as engine_install

PACKAGE = "cosign"
PASSWORD = "kept-out-of-every-list-of-processes"  # noqa: S105 -- of keys that tests make


def install(folder: Path) -> Path:
    """The program's folder. Debian 12 has no such package, and runs that of Debian 13."""
    installed = shutil.which(PACKAGE)
    if installed:
        return Path(installed).parent
    if not _download(folder, ["-oAPT::Sandbox::User=root"]):
        private = engine_install._private_apt(folder, engine_install._sources(Silent()))
        subprocess.run(["apt-get", *private, "update"], check=True, capture_output=True)
        assert _download(folder, private), "Debian 13's archive has no cosign"
    (package,) = folder.glob("*.deb")
    subprocess.run(["dpkg", "-x", str(package), str(folder)], check=True)
    return folder / "usr" / "bin"


def _download(folder: Path, options: list[str]) -> bool:
    command = ["apt-get", *options, "download", PACKAGE]
    return not subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode


def generate(program: Path, folder: Path) -> tuple[Path, Path]:
    """A new private and public key in a new folder."""
    folder.mkdir(parents=True)
    subprocess.run(
        [program / PACKAGE, "generate-key-pair"],
        cwd=folder,
        env=os.environ | {"COSIGN_PASSWORD": PASSWORD},
        check=True,
        capture_output=True,
    )
    return folder / "cosign.key", folder / "cosign.pub"
