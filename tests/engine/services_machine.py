"""A machine with systemd, docker compose and podman's generator: a container of Debian 13."""

import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

INSTALL = """
set -e
apt-get update -q
apt-get install -qy --no-install-recommends docker-cli docker-compose systemd
# Of podman no more than the two programs: nothing is run by it here.
cd /opt && apt-get download -q podman && dpkg -x podman_*.deb /
# The engine is the one outside.
echo '[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/true' >/etc/systemd/system/docker.service
touch /installed
"""
WAIT = "until [[ -e /installed ]]; do sleep 0.1; done; exec /lib/systemd/systemd"
UP = """
until systemctl is-system-running --wait | grep -qE 'running|degraded'; do sleep 0.1; done
"""
RECORDER = "/usr/local/bin/recorder"
RECORDED = "/var/lib/recorded"
RECORD = f"""#!/bin/bash
[[ $1 != run ]] || printf '%s\\0' "$@" >{RECORDED}
"""


class Machine:
    """What runs on it: `model` lies at the same path inside, for the engine looks outside."""

    def __init__(self, name: str) -> None:
        self._name = name

    def run(self, *words: str, stdin: str | None = None) -> "subprocess.CompletedProcess[str]":
        """A command and all that it said; the exit code is the caller's matter."""
        command = ["docker", "exec", "--interactive", self._name, *words]
        return subprocess.run(
            command,
            input=stdin or "",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )

    def must(self, *words: str, stdin: str | None = None) -> str:
        """What a command said that has to work."""
        result = self.run(*words, stdin=stdin)
        assert result.returncode == 0, result.stdout
        return result.stdout

    def write(self, folder: str, files: dict[str, str]) -> None:
        self.must("mkdir", "-p", folder)
        for name, text in files.items():
            self.must("tee", f"{folder}/{name}", stdin=text)


@contextmanager
def started(image: str, *folders: Path) -> Iterator[Machine]:
    """Bring it up from an image of Debian 13; `folders` are seen at the same paths inside."""
    name = f"turboquant-test-machine-{secrets.token_hex(4)}"
    binds = [("/var/run/docker.sock", "/run/docker.sock"), *((str(one),) * 2 for one in folders)]
    volumes = [word for source, target in binds for word in ("--volume", f"{source}:{target}")]
    system = ["--privileged", "--cgroupns=private", "--tmpfs=/run", "--tmpfs=/tmp", *volumes]
    command = ["docker", "run", "--detach", "--name", name, *system, image, "bash", "-c", WAIT]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    machine = Machine(name)
    try:
        machine.must("bash", "-c", INSTALL)
        machine.must("timeout", "60", "bash", "-c", UP)
        machine.write("/usr/local/bin", {"recorder": RECORD})
        machine.must("chmod", "+x", RECORDER)
        yield machine
    finally:
        remove = ["docker", "rm", "--force", "--volumes", name]
        subprocess.run(remove, check=False, stdout=subprocess.DEVNULL)
