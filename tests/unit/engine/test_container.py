import docker
import pytest

from builder.common.errors import EngineError
from builder.engine import containers as container
from builder.engine import file_access as model_access
from builder.engine.file_access import COPY_BYTES, Access, FileStatus

BIG = COPY_BYTES + 1


@pytest.mark.parametrize(
    ("size", "mode", "remapped", "access"),
    [
        (COPY_BYTES, 0o600, False, Access("copy")),
        (COPY_BYTES, 0o644, True, Access("copy")),
        (BIG, 0o644, False, Access("mount")),
        (BIG, 0o644, True, Access("mount")),
        (BIG, 0o640, False, Access("mount", groups=(34,))),
        (BIG, 0o600, False, Access("mount", user="12:34")),
        (BIG, 0o640, True, Access("copy")),
        (BIG, 0o600, True, Access("copy")),
    ],
)
def test_access(size: int, mode: int, *, remapped: bool, access: Access) -> None:
    assert model_access.access_to(FileStatus(size, mode, 12, 34), remapped=remapped) == access


@pytest.mark.parametrize(
    ("info", "requests"),
    [
        ({"Runtimes": {"runc": {}}}, []),
        ({"Runtimes": {"runc": {}}, "DiscoveredDevices": [{"ID": "vendor.com/net=all"}]}, []),
        ({"Runtimes": {"nvidia": {}, "runc": {}}}, [("nvidia", -1, [])]),
        (
            {"Runtimes": {}, "DiscoveredDevices": [{"Source": "cdi", "ID": "nvidia.com/gpu=all"}]},
            [("cdi", 0, ["nvidia.com/gpu=all"])],
        ),
    ],
)
def test_gpu_requests(info: dict[str, object], requests: list[tuple[str, int, list[str]]]) -> None:
    found = [(r["Driver"], r["Count"], r["DeviceIDs"]) for r in container.gpu_requests(info)]
    assert found == requests


@pytest.mark.parametrize("address", ["tcp://192.0.2.1:2375", "tcp://engine.example:2375"])
def test_an_engine_elsewhere_is_refused_without_asking_it(address: str) -> None:
    client = docker.DockerClient(base_url=address, version="1.45")
    with (
        pytest.raises(EngineError, match="another machine"),
        container.running(client, container.Launch("any")),
    ):
        pass
