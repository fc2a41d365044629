"""A program on this machine as a target: started on loopback, watched, ended."""

import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from builder.common.errors import UsageError
from builder.engine import processes
from builder.engine.binary_target import BinaryTarget
from builder.llama import client as probe_server
from builder.llama import readiness
from builder.llama import wait as waiting
from builder.llama.client import Server
from builder.model.pins import Profile
from builder.smoke import servers as launches
from builder.smoke.probes.stop import DEADLINE_S
from tests.conftest import ROOT

SERVER = """#!/usr/bin/env python3
import os, socket, sys
port = int(sys.argv[sys.argv.index("--port") + 1])
host = sys.argv[sys.argv.index("--host") + 1]
print("listening", os.environ.get("CODEBOOK"), *sys.argv[1:], flush=True)
server = socket.create_server((host, port))
print("ready", flush=True)
while True:
    connection, _ = server.accept()
    connection.sendall(b"hello")
    connection.close()
"""


def program(folder: Path, text: str) -> Path:
    path = folder / "llama-server"
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    return path


@pytest.fixture
def server(tmp_path: Path) -> Path:
    return program(tmp_path, SERVER)


def wait_for(serving, word: str) -> str:
    while word not in serving.log():
        assert serving.state().running
    return serving.log()


def test_it_listens_where_it_says(server):
    with BinaryTarget(server).serve(["-np", "2"], Path("m.gguf")) as serving:
        wait_for(serving, "ready")
        with socket.create_connection(("127.0.0.1", serving.port)) as connection:
            assert connection.recv(5) == b"hello"
        assert serving.url == f"http://127.0.0.1:{serving.port}"


def test_settings_of_the_users_shell_reach_no_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = program(tmp_path, "#!/bin/sh\nenv\n")
    secrets = {"BUILDER_REGISTRY_PASSWORD": "hunter2", "LLAMA_API_KEY": "hunter2"}
    for name, value in {**secrets, "LLAMA_ARG_CTX_SIZE": "64", "TURBO_LAYER_ADAPTIVE": "1"}.items():
        monkeypatch.setenv(name, value)
    target = BinaryTarget(shown, {"LLAMA_ARG_CTX_SIZE": "512"})
    given = target.output()
    assert "hunter2" not in given
    assert "TURBO_LAYER_ADAPTIVE" not in given
    assert "LLAMA_ARG_CTX_SIZE=512" in given
    assert target.held_back() == [*secrets, "TURBO_LAYER_ADAPTIVE"]


def test_it_gets_the_model_the_arguments_and_the_environment(server):
    with BinaryTarget(server, {"CODEBOOK": "x.bin"}).serve(["-np", "2"], Path("m.gguf")) as serving:
        log = wait_for(serving, "ready")
    assert log.splitlines()[0].startswith("listening x.bin -m m.gguf --host 127.0.0.1 --port")
    assert log.splitlines()[0].endswith("-np 2")


@pytest.mark.parametrize(
    "name",
    [
        "BUILDER_REGISTRY_PASSWORD",
        "GITHUB_TOKEN",
        "COSIGN_PASSWORD",
        "SSH_AUTH_SOCK",
        "HF_TOKEN",
        "AWS_SECRET_ACCESS_KEY",
        "ANTHROPIC_API_KEY",
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
        "PIP_INDEX_URL",
    ],
)
def test_no_secret_of_the_user_is_in_its_environment(tmp_path, monkeypatch, name):
    monkeypatch.setenv(name, "https://me:s3cret@host/")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    target = BinaryTarget(program(tmp_path, "#!/bin/sh\nenv\n"))
    assert "s3cret" not in target.output("--help")
    assert "CUDA_VISIBLE_DEVICES=0" in target.output("--help")


def test_sigterm_that_nobody_handles_is_143(server):
    with BinaryTarget(server).serve([], Path("m.gguf")) as serving:
        wait_for(serving, "ready")
        serving.terminate()
        while serving.state().running:
            pass
        assert serving.state().exit_code == 128 + signal.SIGTERM


def test_nothing_is_left_running(server):
    with BinaryTarget(server).serve([], Path("m.gguf")) as serving:
        wait_for(serving, "ready")
    assert not serving.state().running


def test_it_has_no_healthcheck(server):
    with BinaryTarget(server).serve([], Path("m.gguf")) as serving:
        assert serving.check() is None


def test_output_holds_both_streams(tmp_path):
    path = program(tmp_path, "#!/bin/sh\necho out $1\necho err >&2\n")
    assert BinaryTarget(path).output("--help").splitlines() == ["out --help", "err"]


def test_a_file_that_is_no_program_is_named(tmp_path):
    path = tmp_path / "llama-server"
    path.write_text("no program", encoding="utf-8")
    with pytest.raises(UsageError, match="cannot be run"):
        BinaryTarget(path).output("--help")


# --- Whose answers are believed

ANSWERING = """#!/usr/bin/env python3
import http.server, json, socket, sys
port = int(sys.argv[sys.argv.index("--port") + 1])
alias = sys.argv[sys.argv.index("--alias") + 1]

class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = {"status": "ok", "data": [{"id": alias}]}
        text = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

class Sharing(http.server.HTTPServer):
    # As llama-server's HTTP library does.
    allow_reuse_port = True

    def server_bind(self):
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        super().server_bind()

print("ready", flush=True)
Sharing(("127.0.0.1", port), Answer).serve_forever()
"""

SILENT = "#!/bin/sh\necho ready\nexec sleep 60\n"


class Impostor(BaseHTTPRequestHandler):
    """Somebody else's server: healthy, and called what ours is called."""

    status = 200

    def do_GET(self) -> None:
        text = b'{"status": "ok", "data": [{"id": "mine"}]}'
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_words: object) -> None:
        pass


@contextmanager
def impostor(port: int, handler: type[Impostor] = Impostor) -> Iterator[None]:
    """Somebody else listens at this port of the loopback, as SO_REUSEPORT lets them."""
    server = HTTPServer(("127.0.0.1", port), handler, bind_and_activate=False)
    server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    server.server_bind()
    server.server_activate()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


def look_at(serving, session) -> Server:
    return Server(serving.url, session, Profile("mine", 1, 512))


def look(serving) -> str:
    with probe_server.session() as session:
        return waiting.look(serving, look_at(serving, session), 0.0).health


def test_a_port_that_a_container_would_be_told_is_not_asked_for(server):
    with BinaryTarget(server).serve([], Path("m.gguf"), port=18080) as serving:
        assert serving.port != 18080
        assert f"--port {serving.port}" in wait_for(serving, "ready")


@pytest.mark.parametrize("start", ["exec ", ""], ids=["becomes it", "waits for it"])
def test_its_own_answer_is_believed(tmp_path, start):
    (tmp_path / "real").write_text(ANSWERING, encoding="utf-8")
    script = f'#!/bin/sh\n{start}{sys.executable} {tmp_path}/real "$@"\n'
    with BinaryTarget(program(tmp_path, script)).serve(
        ["--alias", "mine"], Path("m.gguf")
    ) as serving:
        wait_for(serving, "ready")
        while (health := look(serving)) == "silent":
            assert serving.state().running
        assert health == "ok"


def test_somebody_elses_answer_is_none(tmp_path):
    with BinaryTarget(program(tmp_path, SILENT)).serve([], Path("m.gguf")) as serving:
        wait_for(serving, "ready")
        with impostor(serving.port):
            assert look(serving) == "silent"


def test_nor_is_one_at_a_port_that_both_share(tmp_path):
    with BinaryTarget(program(tmp_path, ANSWERING)).serve(
        ["--alias", "mine"], Path("m.gguf")
    ) as serving:
        while look(serving) != "ok":
            assert serving.state().running
        with impostor(serving.port):
            assert look(serving) == "silent"


def test_somebody_else_who_loads_does_not_show_it_loading(tmp_path):
    class Loading(Impostor):
        status = 503

    with (
        BinaryTarget(program(tmp_path, SILENT)).serve([], Path("m.gguf")) as serving,
        impostor(serving.port, Loading),
        probe_server.session() as session,
    ):
        setting = SimpleNamespace(timeout_s=0.2, session=session, profile=Profile("mine", 1, 512))
        assert not launches._seen_loading(serving, setting)
        assert readiness.health(probe_server.get(look_at(serving, session), "/health")) == "loading"


def test_where_nobody_can_tell_whose_port_it_is_its_name_does(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "listens", lambda *_: None)
    with (
        BinaryTarget(program(tmp_path, SILENT)).serve([], Path("m.gguf")) as serving,
        impostor(serving.port),
        probe_server.session() as session,
    ):
        for alias, health in (("mine", "ok"), ("mine-3f2a", "silent")):
            server = Server(serving.url, session, Profile(alias, 1, 512))
            assert waiting.look(serving, server, 0.0).health == health


# --- What is left behind

CHILD = """
import pathlib, sys
from builder.engine.binary_target import BinaryTarget
with BinaryTarget(pathlib.Path(sys.argv[1])).serve([], pathlib.Path("m.gguf")) as serving:
    while "ready" not in serving.log():
        assert serving.state().running
    print(serving.process.pid, flush=True)
    sys.stdin.read()
"""


def test_a_builder_that_is_killed_takes_its_server_along(server):
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, server],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        pid = int(child.stdout.readline())
        descriptor = os.pidfd_open(pid)
        child.kill()
        assert ended(descriptor)


def test_what_a_script_started_ends_with_it(tmp_path):
    script = "#!/bin/sh\nsleep 600 &\necho $! ready\nwait\n"
    with BinaryTarget(program(tmp_path, script)).serve([], Path("m.gguf")) as serving:
        sleeping = os.pidfd_open(int(wait_for(serving, "ready").split()[0]))
    assert ended(sleeping)


def ended(descriptor: int) -> bool:
    """Whether the process of this descriptor ends in time."""
    readable, _, _ = select.select([descriptor], [], [], DEADLINE_S)
    os.close(descriptor)
    return bool(readable)
