"""What a stranger's image can do while it is smoked or audited, seen from within."""

import contextlib
import re
import secrets
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from docker import DockerClient
from docker.errors import NotFound
from docker.models.containers import Container

from builder.common.errors import EngineError
from builder.engine import containers as container
from builder.engine import restrictions
from builder.engine.containers import Launch, Reach, Running
from builder.image import files as image_files
from builder.llama import container_paths

pytestmark = pytest.mark.engine

REACHES: tuple[Reach, ...] = ("none", "host")
"""How strangers' images are run: to print something, and to serve."""


@pytest.fixture(params=REACHES)
def sandboxed(
    request: pytest.FixtureRequest, engine: DockerClient, sleeping_image: str
) -> Iterator[Container]:
    with container.running(engine, Launch(sleeping_image, reach=request.param)) as running:
        yield engine.containers.get(running.name)


def inside(one: Container, script: str) -> str:
    """What a shell in there says."""
    return str(one.exec_run(["bash", "-c", script]).output.decode())


@contextlib.contextmanager
def listening(address: str) -> Iterator[tuple[str, list[str]]]:
    """A listener at this address of the machine, and who called."""
    callers: list[str] = []
    with socket.create_server((address, 0)) as server:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, (caller, _) = server.accept()
                    connection.close()
                    callers.append(caller)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"{address}/{server.getsockname()[1]}", callers
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def bridge(engine: DockerClient) -> str:
    """The machine's address that containers of the default network reach it by."""
    return str(engine.networks.get("bridge").attrs["IPAM"]["Config"][0]["Gateway"])


def own_address() -> str:
    """The machine's address towards elsewhere."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("198.51.100.1", 9))
        return str(probe.getsockname()[0])


def connects(one: Container, place: str) -> bool:
    """Whether a program in there reaches ADDRESS/PORT."""
    found = one.exec_run(["timeout", "5", "bash", "-c", f"exec 3<>/dev/tcp/{place}"])
    return bool(found.exit_code == 0)


def test_nothing_of_the_machine_or_beyond_is_called(
    sandboxed: Container, engine: DockerClient
) -> None:
    for address in (bridge(engine), own_address()):
        with listening(address) as (place, callers):
            assert not connects(sandboxed, place)
            assert callers == []
    assert inside(sandboxed, "tail -n +2 /proc/net/route | awk '$2 == \"00000000\"'") == ""
    assert sandboxed.exec_run(["timeout", "9", "getent", "hosts", "example.org"]).exit_code != 0


def test_a_plain_container_would_call(engine: DockerClient, sleeping_image: str) -> None:
    """The listener is there: that nobody calls is the sandbox's doing."""
    plain = engine.containers.run(sleeping_image, detach=True)
    try:
        with listening(bridge(engine)) as (place, callers):
            assert connects(plain, place)
            assert callers
    finally:
        plain.remove(force=True)


def test_no_other_container_is_reached(engine: DockerClient, mainline_cpu_image: str) -> None:
    with serving(engine, mainline_cpu_image) as first, serving(engine, mainline_cpu_image) as other:
        (address,) = re.findall(r"//([\d.]+):", other.url)
        assert connects(engine.containers.get(other.name), f"{address}/8080")
        assert not connects(engine.containers.get(first.name), f"{address}/8080")


@contextlib.contextmanager
def serving(engine: DockerClient, image: str) -> Iterator[Running]:
    """A llama-server without a model's path waits for requests; this machine reaches it."""
    launch = Launch(image, ["--host", "0.0.0.0", "--port", "8080"])  # noqa: S104
    with container.running(engine, launch) as running:
        deadline = time.monotonic() + 30
        while not reached(running):
            assert time.monotonic() < deadline, running.log()
            time.sleep(0.05)
        yield running


def reached(running: Running) -> bool:
    (address, port) = re.findall(r"//([\d.]+):(\d+)", running.url)[0]
    with contextlib.suppress(OSError), socket.create_connection((address, int(port)), 1):
        return True
    return False


def test_no_capability_is_had_and_none_gained(sandboxed: Container) -> None:
    status = inside(sandboxed, "cat /proc/self/status")
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert re.search(rf"^{name}:\s+0+$", status, re.MULTILINE), status
    assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)


@pytest.mark.parametrize("user", ["", "0:0"], ids=["as the image says", "as root"])
def test_only_memory_is_written(sandboxed: Container, user: str) -> None:
    for folder in ("/", "/opt/llama", "/home/llama", "/var/tmp", "/run", "/usr/local/bin"):
        found = sandboxed.exec_run(["bash", "-c", f"echo x >{folder}/written"], user=user)
        assert found.exit_code != 0, folder
    assert inside(sandboxed, "echo x >/tmp/written && cat /tmp/written") == "x\n"
    assert "No space left" in inside(sandboxed, "head -c 300M /dev/zero >/tmp/large")
    # A file there is no program.
    assert "Permission denied" in inside(
        sandboxed, "cp /usr/bin/true /tmp/; chmod +x /tmp/true; /tmp/true"
    )


def test_processes_and_memory_have_limits(sandboxed: Container, engine: DockerClient) -> None:
    host, info = sandboxed.attrs["HostConfig"], engine.info()
    assert 0 < host["PidsLimit"] <= 512 + 8 * info["NCPU"]
    assert 0 < host["Memory"] < info["MemTotal"]
    assert host["MemorySwap"] == host["Memory"]
    assert inside(sandboxed, "cat /proc/1/oom_score_adj") == "1000\n"


def test_a_fork_bomb_ends_at_the_limit(engine: DockerClient, sleeping_image: str) -> None:
    bomb = ["perl", "-e", "while (1) { defined(my $p = fork) or exec 'sleep', '600'; $p or sleep }"]
    with container.running(engine, Launch(sleeping_image, reach="none")) as running:
        one = engine.containers.get(running.name)
        one.exec_run(bomb, detach=True)
        limit, deadline = one.attrs["HostConfig"]["PidsLimit"], time.monotonic() + 30
        while (count := one.stats(stream=False)["pids_stats"]["current"]) < limit:
            assert time.monotonic() < deadline, count
        # The kernel counts a fork before it refuses it.
        assert count <= limit + 1
        name = running.name
    with pytest.raises(NotFound):
        engine.containers.get(name)


def test_a_server_that_runs_too_long_is_ended_and_said_so(
    engine: DockerClient, sleeping_image: str
) -> None:
    with container.running(engine, Launch(sleeping_image, lasts_s=0.5)) as running:
        deadline = time.monotonic() + 30
        while (state := running.state()).running:
            assert time.monotonic() < deadline
    assert state.overdue
    assert state.exit_code == 128 + 9


def test_a_server_that_ends_in_time_is_left_alone(
    engine: DockerClient, sleeping_image: str
) -> None:
    with container.running(engine, Launch(sleeping_image, lasts_s=600)) as running:
        assert running.state().running
    assert not any(isinstance(one, threading.Timer) for one in threading.enumerate())


def test_a_model_is_copied_into_a_volume_that_goes_with_the_container(
    engine: DockerClient, sleeping_image: str, tmp_path
) -> None:
    model = tmp_path / "model.gguf"
    model.write_bytes(b"GGUF")
    with container.running(engine, Launch(sleeping_image, model=model)) as running:
        one = engine.containers.get(running.name)
        (volume,) = [mount["Name"] for mount in one.attrs["Mounts"] if mount["Type"] == "volume"]
        assert inside(one, f"cat {container_paths.MODEL}") == "GGUF"
        for words in (f"echo >>{container_paths.MODEL}", f"rm -f {container_paths.MODEL}"):
            assert one.exec_run(["bash", "-c", words]).exit_code != 0
    with pytest.raises(NotFound):
        engine.volumes.get(volume)


def test_what_an_audit_runs_is_in_the_sandbox_too(engine: DockerClient, sleeping_image: str):
    with image_files.started(engine, sleeping_image, "--help", gpu=False) as started:
        host = started._handle.attrs["HostConfig"]
    assert (host["NetworkMode"], host["ReadonlyRootfs"]) == ("none", True)
    assert host["CapDrop"] == ["ALL"]
    assert host["PidsLimit"] > 0


@pytest.fixture
def network(engine: DockerClient) -> Iterator[restrictions.Network]:
    made = restrictions.Network(f"turboquant-test-{secrets.token_hex(4)}", internal=True)
    yield made
    with contextlib.suppress(NotFound):
        engine.networks.get(made.name).remove()


def test_a_network_is_made_once(engine: DockerClient, network: restrictions.Network) -> None:
    assert restrictions.join(engine, network) == network.name
    first = engine.networks.get(network.name).id
    assert restrictions.join(engine, network) == network.name
    assert engine.networks.get(network.name).id == first


@pytest.mark.parametrize("options", [{"internal": True}, {"options": {restrictions.ICC: "false"}}])
def test_a_network_of_the_name_that_is_open_is_not_taken(
    engine: DockerClient, network: restrictions.Network, options: dict[str, object]
) -> None:
    engine.networks.create(network.name, **options)
    with pytest.raises(EngineError, match="not one that builder made") as caught:
        restrictions.join(engine, network)
    assert "docker network rm" in caught.value.hint


def test_the_config_of_dockers_client_is_not_handed_in(
    engine: DockerClient, sleeping_image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxies = {"default": {"httpProxy": "http://me:hunter2@proxy.example:3128"}}
    monkeypatch.setitem(engine.api._general_configs, "proxies", proxies)
    with container.running(engine, Launch(sleeping_image, reach="none")) as running:
        assert "hunter2" not in str(engine.containers.get(running.name).attrs["Config"])
