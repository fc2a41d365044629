"""A program on this machine as a target: started on loopback, watched, ended."""

import signal
import socket
from pathlib import Path

import pytest

from builder.binary_target import BinaryTarget
from builder.errors import UsageError

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


def test_it_gets_the_model_the_arguments_and_the_environment(server):
    with BinaryTarget(server, {"CODEBOOK": "x.bin"}).serve(["-np", "2"], Path("m.gguf")) as serving:
        log = wait_for(serving, "ready")
    assert log.splitlines()[0].startswith("listening x.bin -m m.gguf --host 127.0.0.1 --port")
    assert log.splitlines()[0].endswith("-np 2")


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
        assert serving.health() is None


def test_output_holds_both_streams(tmp_path):
    path = program(tmp_path, "#!/bin/sh\necho out $1\necho err >&2\n")
    assert BinaryTarget(path).output("--help").splitlines() == ["out --help", "err"]


def test_a_file_that_is_no_program_is_named(tmp_path):
    path = tmp_path / "llama-server"
    path.write_text("no program", encoding="utf-8")
    with pytest.raises(UsageError, match="cannot be run"):
        BinaryTarget(path).output("--help")
