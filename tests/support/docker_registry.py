"""Debian's docker-registry on this machine: a real registry for tests, on a free loopback port."""

import contextlib
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import requests

PACKAGE = "docker-registry"
USER, PASSWORD = "publisher", "kept-out-of-every-log"
# PASSWORD in bcrypt, the only kind of hash that the registry takes.
_HTPASSWD = f"{USER}:$2b$04$ehxhKxk47JTWtj.bJnQ7IeT6t4kQikpF1kscI1t.AM66Hiee.77JS\n"
_LISTENS = re.compile(r"listening on 127\.0\.0\.1:(\d+)")
_ACCEPT = ", ".join(
    [
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    ]
)


def install(folder: Path) -> Path:
    """The registry's program: installed, or Debian's package unpacked in the folder."""
    installed = shutil.which(PACKAGE)
    if installed:
        return Path(installed)
    download = ["apt-get", "download", "-oAPT::Sandbox::User=root", PACKAGE]
    if subprocess.run(download, cwd=folder, capture_output=True, check=False).returncode:
        subprocess.run(["apt-get", "update"], check=True, capture_output=True)
        subprocess.run(download, cwd=folder, check=True, capture_output=True)
    (package,) = folder.glob("*.deb")
    subprocess.run(["dpkg", "-x", str(package), str(folder)], check=True)
    return folder / "usr" / "bin" / PACKAGE


class DockerRegistry:
    """A running registry. `host` is `127.0.0.1:PORT`; it keeps its port when started again."""

    def __init__(self, program: Path, folder: Path, *, login: bool) -> None:
        self._program, self._folder, self._login = program, folder, login
        self._process: subprocess.Popen[str] | None = None
        self._port = 0
        self.storage = folder / "storage"
        self.log = folder / "registry.log"
        self.auth = (USER, PASSWORD) if login else None
        folder.mkdir(parents=True, exist_ok=True)
        self.start()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self._port}"

    def start(self) -> None:
        settings = self._folder / "config.yml"
        settings.write_text(self._settings(), encoding="utf-8")
        self._process = subprocess.Popen(
            [str(self._program), "serve", str(settings)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self._process.stdout is not None
        said = []
        for line in self._process.stdout:
            said.append(line)
            if found := _LISTENS.search(line):
                self._port = int(found[1])
                break
        else:
            raise AssertionError("".join(said))
        keep = threading.Thread(target=self._keep_log, args=(self._process.stdout,), daemon=True)
        keep.start()

    def _keep_log(self, lines: IO[str]) -> None:
        with self.log.open("a", encoding="utf-8") as log:
            shutil.copyfileobj(lines, log)

    def stop(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def _settings(self) -> str:
        lines = [
            "version: 0.1",
            f"storage: {{filesystem: {{rootdirectory: {self.storage}}}, delete: {{enabled: on}}}}",
            f"http: {{addr: '127.0.0.1:{self._port}', secret: of-a-test}}",
        ]
        if self._login:
            self.change_password(back=True)
            lines.append(f"auth: {{htpasswd: {{realm: test, path: {self._folder}/htpasswd}}}}")
        return "\n".join(lines) + "\n"

    def change_password(self, *, back: bool = False) -> None:
        """From now on PASSWORD is not the password, or it is again; the registry reads it anew."""
        user = USER if back else f"former-{USER}"
        text = _HTPASSWD.replace(USER, user)
        (self._folder / "htpasswd").write_text(text, encoding="utf-8")

    def ask(self, method: str, path: str, **more: Any) -> requests.Response:
        """One question to the API; `path` comes after /v2/."""
        url = f"http://{self.host}/v2/{path}"
        headers = {"Accept": _ACCEPT}
        return requests.request(method, url, auth=self.auth, headers=headers, timeout=10, **more)

    def put(self, repository: str, tag: str, media_type: str, body: bytes) -> requests.Response:
        """Put a manifest under a tag, as anybody with the right could."""
        url = f"http://{self.host}/v2/{repository}/manifests/{tag}"
        headers = {"Content-Type": media_type}
        return requests.put(url, data=body, auth=self.auth, headers=headers, timeout=10)

    def tags(self, repository: str) -> list[str]:
        return sorted(self.ask("GET", f"{repository}/tags/list").json().get("tags") or [])

    def digest(self, repository: str, tag: str) -> str | None:
        """What a tag stands for, or None."""
        answer = self.ask("HEAD", f"{repository}/manifests/{tag}")
        return answer.headers["Docker-Content-Digest"] if answer.ok else None

    def manifest(self, repository: str, name: str) -> dict[str, Any]:
        """The manifest or index of a tag or digest."""
        answer = self.ask("GET", f"{repository}/manifests/{name}")
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found


@contextlib.contextmanager
def serve(program: Path, folder: Path, *, login: bool = False) -> Iterator[DockerRegistry]:
    """A registry whose files lie in the folder; `login`: it asks for USER and PASSWORD."""
    registry = DockerRegistry(program, folder, login=login)
    try:
        yield registry
    finally:
        registry.stop()
