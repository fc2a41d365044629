"""`builder doctor` and its --fix: reading what a machine says, judging it, planning."""

import dataclasses
import json
from pathlib import Path

import pytest

from builder.common.errors import EngineError, UsageError
from builder.doctor import checks as doctor
from builder.doctor import install as engine_install
from builder.doctor import install_plan as engine_plan
from builder.doctor.install_plan import Install, Link, Machine, Start, Unpack
from builder.engine import facts
from builder.pins import load as pins
from tests.conftest import ROOT

PINS = pins.load(ROOT / "pins.toml")
SM86 = "spiritbuun-cuda12-sm86"

BOOKWORM = """\
PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"
NAME="Debian GNU/Linux"
VERSION_ID="12"
VERSION="12 (bookworm)"
VERSION_CODENAME=bookworm
ID=debian
"""
NOBLE = """\
PRETTY_NAME="Ubuntu 24.04.3 LTS"
NAME="Ubuntu"
VERSION_ID="24.04"
VERSION="24.04.3 LTS (Noble Numbat)"
VERSION_CODENAME=noble
ID=ubuntu
ID_LIKE=debian
UBUNTU_CODENAME=noble
"""
FEDORA = 'NAME="Fedora Linux"\nVERSION="42 (Server Edition)"\nID=fedora\nVERSION_CODENAME=""\n'
TRIXIE = BOOKWORM.replace("bookworm", "trixie").replace("12", "13")

INDEX_TARGETS = """\
Packages Debian bookworm http://mirror.example/debian/
Translations Debian bookworm http://mirror.example/debian/
Packages Debian bookworm-updates http://mirror.example/debian/
Packages Debian bookworm-security http://mirror.example/debian-security/
Packages Debian bookworm-security http://mirror.example/debian-security/
Packages Debian~Backports bookworm-backports http://mirror.example/debian/
Packages Debian bookworm cdrom:[Debian GNU/Linux 12.5.0 _Bookworm_ - Official amd64 NETINST]/
Packages Docker bookworm https://engine.example/linux/debian/
"""


def answer(text: str, code: int | None = 0) -> facts.Answer:
    return facts.Answer(code, text)


def machine(os_release: str, **found: object) -> Machine:
    bare = Machine(
        distribution=facts.parse_os_release(os_release),
        answers=False,
        dockerd=None,
        commands=frozenset(),
        buildx=False,
    )
    return dataclasses.replace(bare, **found)


def complete(os_release: str) -> Machine:
    commands = frozenset({"docker", "git", "mmdebstrap", "iptables", "runc"})
    return machine(os_release, answers=True, commands=commands, buildx=True)


def gpu(capability: str = "8.6", driver: str = "550.54.14") -> facts.Gpu:
    return facts.Gpu("NVIDIA GeForce RTX 3090", driver, capability)


def gpu_checks(
    variant: str, gpus: list[facts.Gpu] | str, info: dict[str, object] | None = None
) -> dict[str, doctor.Check]:
    checks = doctor.check_gpus(PINS, variant, gpus, facts.Engine(version="26.1.5", info=info or {}))
    return {check.name: check for check in checks}


# --- What the machine says


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (BOOKWORM, ("debian", "bookworm", "Debian GNU/Linux 12 (bookworm)")),
        (NOBLE, ("ubuntu", "noble", "Ubuntu 24.04.3 LTS")),
        (FEDORA, ("fedora", "", "Fedora Linux")),
        ("", ("", "", "an unknown system")),
    ],
)
def test_os_release(text, expected):
    assert dataclasses.astuple(facts.parse_os_release(text)) == expected


def test_gpus_of_nvidia_smi():
    text = "NVIDIA GeForce RTX 3090, 550.54.14, 8.6\nNVIDIA GeForce RTX 4090, 550.54.14, 8.9"
    assert facts.parse_gpus(answer(text)) == [
        gpu(),
        facts.Gpu("NVIDIA GeForce RTX 4090", "550.54.14", "8.9"),
    ]


@pytest.mark.parametrize("line", ["Tesla T4, 470.82.01", "Tesla T4, 470.82.01, [N/A]"])
def test_a_driver_that_does_not_tell_the_compute_capability(line):
    assert facts.parse_gpus(answer(line)) == [facts.Gpu("Tesla T4", "470.82.01", "")]


@pytest.mark.parametrize(
    ("text", "code", "complaint"),
    [
        (
            "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make "
            "sure that the latest NVIDIA driver is installed and running.\n",
            9,
            "NVIDIA-SMI has failed",
        ),
        ("No devices were found\n", 6, "No devices were found"),
        ("No devices were found\n", 0, "lists no GPU"),
        ("", 1, "said nothing"),
    ],
)
def test_why_nvidia_smi_lists_no_gpu(text, code, complaint):
    assert complaint in facts.parse_gpus(answer(text, code))


@pytest.mark.parametrize(
    ("text", "code", "version", "usable"),
    [
        ("github.com/docker/buildx 0.13.1+ds1 0.13.1+ds1-3", 0, "0.13.1+ds1", True),
        (
            "github.com/docker/buildx v0.29.1 a32761aeb3debd39be1eca514af3693af0db334b",
            0,
            "v0.29.1",
            True,
        ),
        (
            "github.com/docker/buildx v0.12.1 30feaa1a915b869ebc2eea6328624b49facd4bfb",
            0,
            "v0.12.1",
            False,
        ),
        ("docker: 'buildx' is not a docker command.\nSee 'docker --help'", 1, "", False),
        ("docker: unknown command: docker buildx\n\nRun 'docker --help' for more", 1, "", False),
        ("buildah 1.39.3", 0, "", False),
        ("docker: No such file or directory", None, "", False),
    ],
)
def test_buildx_version(text, code, version, usable):
    found = facts.parse_buildx(answer(text, code))
    assert (found.version.removeprefix("v"), found.usable) == (version.removeprefix("v"), usable)
    assert bool(found.complaint) != bool(found.version)


@pytest.mark.parametrize(
    ("version", "enough"),
    [("26.1.5+dfsg1", True), ("23.0.0", True), ("20.10.24+dfsg1", False), ("dev", False)],
)
def test_engine_version(version, enough):
    assert facts.at_least(version, facts.LOWEST_ENGINE) is enough


def test_podman_is_known_by_its_components():
    assert facts.is_podman({"Components": [{"Name": "Podman Engine", "Version": "5.4.2"}]})
    assert not facts.is_podman({"Components": [{"Name": "Engine", "Version": "26.1.5"}]})
    assert not facts.is_podman({})


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            "Error while fetching server API version: ('Connection aborted.', "
            "FileNotFoundError(2, 'No such file or directory'))",
            "No such file or directory",
        ),
        (
            "Error while fetching server API version: ('Connection aborted.', "
            "PermissionError(13, 'Permission denied'))",
            "Permission denied",
        ),
        ("Invalid bind address protocol: nonsense", "Invalid bind address protocol: nonsense"),
    ],
)
def test_why_no_engine_answers(text, complaint):
    assert facts.connection_complaint(text) == complaint


def test_a_missing_command_is_an_answer():
    found = facts.ask("no-such-command-anywhere")
    assert (found.code, "no-such-command-anywhere" in found.text) == (None, True)


def test_a_command_that_hangs_is_an_answer():
    assert "did not end" in facts.ask("sleep", "5", timeout_s=1).text


# --- Judging


def test_engine_checks():
    found = doctor.check_engine(facts.Engine(version="26.1.5+dfsg1"))
    assert (found.status, found.found, found.fix) == ("ok", "26.1.5+dfsg1", "")
    bad = {
        "--fix": facts.Engine(complaint="No such file or directory"),
        "usermod": facts.Engine(complaint="Permission denied"),
        "podman-docker": facts.Engine(version="5.4.2", podman=True),
        "remove its package": facts.Engine(version="20.10.24+dfsg1"),
    }
    for fix, engine in bad.items():
        check = doctor.check_engine(engine)
        assert check.status == "fail"
        assert fix in check.fix


def test_an_engine_elsewhere_is_not_installed_here():
    away = facts.Engine(host="tcp://10.0.0.1:2375", complaint="Connection refused")
    assert not away.local
    assert doctor.check_engine(away).fix.startswith("start the engine at tcp://10.0.0.1:2375, or")


@pytest.mark.parametrize(
    ("system", "machine_name", "status"),
    [("Linux", "x86_64", "ok"), ("Linux", "aarch64", "fail"), ("Darwin", "x86_64", "fail")],
)
def test_machine(system, machine_name, status):
    assert doctor.check_machine(system, machine_name).status == status


def test_disk_and_memory():
    folder = Path("/var/lib/docker")
    assert doctor.check_disk(folder, 30 * doctor.GB, doctor.DISK_CUDA).status == "ok"
    little = doctor.check_disk(folder, 8 * doctor.GB, doctor.DISK_CUDA)
    assert (little.status, little.found) == (
        "fail",
        "8 GB free in /var/lib/docker, a build needs 25 GB",
    )
    assert doctor.check_memory(8 * 2**30 - 2**28, doctor.MEMORY_CUDA).status == "ok"
    assert doctor.check_memory(4 * 2**30, doctor.MEMORY_CUDA).status == "warn"
    assert doctor.check_memory(None, doctor.MEMORY_CPU).status == "warn"


@pytest.mark.parametrize(
    ("variant", "status"), [(SM86, "warn"), ("spiritbuun-cpu", "warn"), ("mainline-cpu", "ok")]
)
def test_without_a_gpu_turbo4_is_not_proven(variant, status):
    checks = gpu_checks(variant, "no NVIDIA driver")
    assert [check.status for check in checks.values()] == [status]
    assert ("turbo4 cannot be proven here" in checks["gpu"].found) is (status == "warn")


def test_a_gpu_that_fits():
    checks = gpu_checks(SM86, [gpu()], {"Runtimes": {"runc": {}, "nvidia": {}}})
    assert {check.status for check in checks.values()} == {"ok"}
    assert checks["gpu"].found == "NVIDIA GeForce RTX 3090 (8.6)"


def test_a_driver_too_old_for_the_toolkit():
    check = gpu_checks(SM86, [gpu(driver="470.82.01")])["nvidia driver"]
    assert check.status == "fail"
    assert check.fix == "install NVIDIA driver 525.60.13 or newer"


@pytest.mark.parametrize(
    ("capability", "status", "fix"),
    [
        ("8.6", "ok", ""),
        ("8.9", "warn", "builder build spiritbuun-cuda12-sm89"),
        ("12.0", "fail", "builder build spiritbuun-cuda12-sm120"),
        ("8.0", "fail", 'architectures = ["80"]'),
        ("10.3", "fail", "a base with CUDA 12.9 or newer"),
        ("", "warn", "update the NVIDIA driver"),
    ],
)
def test_a_gpu_of_another_architecture(capability, status, fix):
    check = gpu_checks(SM86, [gpu(capability)])["gpu architecture"]
    assert check.status == status
    assert fix in check.fix


def test_a_pruned_cublas_runs_on_its_own_gpus_only():
    statuses = [
        gpu_checks(f"{SM86}-slim", [gpu(one)])["gpu architecture"].status for one in ("8.6", "8.9")
    ]
    assert statuses == ["ok", "fail"]


def test_the_default_is_recommended_before_a_pruned_one_of_any_name():
    changed = dict(PINS.variants)
    changed["a-slim"] = changed.pop(f"{SM86}-slim")
    pins = dataclasses.replace(PINS, variants=changed)
    assert doctor.recommended_variant(pins, "spiritbuun-cpu", "8.6") == SM86


def test_one_gpu_of_several_is_enough():
    checks = gpu_checks(SM86, [gpu("12.0"), gpu("8.6")])
    assert checks["gpu architecture"].status == "ok"


def test_a_cpu_variant_beside_a_gpu():
    check = gpu_checks("spiritbuun-cpu", [gpu("8.9")])["gpu architecture"]
    assert (check.status, check.fix) == ("warn", "builder build spiritbuun-cuda12-sm89")
    assert "gpu architecture" not in gpu_checks("mainline-cpu", [gpu()])


@pytest.mark.parametrize(
    ("info", "status"),
    [
        ({"Runtimes": {"nvidia": {"path": "nvidia-container-runtime"}}}, "ok"),
        ({"DiscoveredDevices": [{"Source": "cdi", "ID": "nvidia.com/gpu=all"}]}, "ok"),
        (
            {"Runtimes": {"runc": {}}, "CDISpecDirs": ["/nowhere"], "DiscoveredDevices": None},
            "warn",
        ),
    ],
)
def test_container_toolkit(info, status):
    assert gpu_checks(SM86, [gpu()], info)["container toolkit"].status == status


@pytest.mark.parametrize(
    ("variant", "capability", "expected"),
    [
        (SM86, "8.6", SM86),
        (SM86, "8.9", "spiritbuun-cuda12-sm89"),
        (SM86, "12.0", "spiritbuun-cuda12-sm120"),
        (SM86, "12.1", "spiritbuun-cuda12-sm120"),
        ("spiritbuun-cuda12-multi", "8.9", "spiritbuun-cuda12-multi"),
        ("spiritbuun-cpu", "8.6", SM86),
        (f"{SM86}-slim", "8.6", f"{SM86}-slim"),
        # What of cuBLAS was made for 8.9 was pruned.
        (f"{SM86}-slim", "8.9", "spiritbuun-cuda12-sm89"),
        ("thetom-cuda12-sm86", "8.9", "thetom-cuda12-sm86"),
        ("thetom-cuda12-sm86", "12.0", None),
        (SM86, "7.5", None),
        (SM86, "", None),
    ],
)
def test_recommended_variant(variant, capability, expected):
    assert doctor.recommended_variant(PINS, variant, capability) == expected


def test_checks_as_json():
    text = doctor.to_json([doctor.Check("git", "fail", "missing", "apt-get install git")])
    assert json.loads(text) == [
        {"name": "git", "status": "fail", "found": "missing", "fix": "apt-get install git"}
    ]


# --- Planning


@pytest.mark.parametrize("os_release", [BOOKWORM, TRIXIE, NOBLE, FEDORA, ""])
def test_a_complete_machine_needs_nothing(os_release):
    assert engine_plan.plan(complete(os_release)) == []


def test_plan_for_a_bare_debian_13():
    install, start = engine_plan.plan(machine(TRIXIE))
    assert isinstance(install, Install)
    assert {"docker.io", "docker-cli", "docker-buildx", "git", "mmdebstrap"} <= {*install.packages}
    assert {"ca-certificates", "iptables"} <= {*install.packages}
    assert start == Start(Path("/usr/sbin/dockerd"), service=False)


def test_plan_for_a_bare_ubuntu_has_no_package_of_debian_alone():
    install, start = engine_plan.plan(machine(NOBLE, systemd=True))
    assert isinstance(install, Install)
    assert "docker-cli" not in install.packages
    assert "debian-archive-keyring" in install.packages
    assert install.packages.count("docker.io") == 1
    assert start.text == "systemctl start docker"


def test_plan_for_a_bare_debian_12():
    install, unpack, client, plugin, start = engine_plan.plan(machine(BOOKWORM))
    assert isinstance(install, Install)
    assert {"runc", "iptables", "git", "mmdebstrap"} <= {*install.packages}
    assert not {name for name in install.packages if "docker" in name}
    assert unpack == Unpack(("docker.io", "docker-cli", "containerd", "docker-buildx", "tini"))
    assert isinstance(client, Link)
    assert client.link == Path("/usr/local/bin/docker")
    assert isinstance(plugin, Link)
    assert plugin.link == Path("/usr/local/lib/docker/cli-plugins/docker-buildx")
    assert start == Start(engine_plan.ENGINE / "usr/sbin/dockerd", service=False)


def test_systemd_of_debian_12_has_no_unit_for_our_engine():
    start = engine_plan.plan(machine(BOOKWORM, systemd=True))[-1]
    assert "in the background" in start.text


def test_a_foreign_client_is_left_alone():
    plan = engine_plan.plan(machine(BOOKWORM, commands=frozenset({"docker"})))
    links = [action.link.name for action in plan if isinstance(action, Link)]
    assert links == ["docker-buildx"]


def test_an_engine_that_answers_is_left_alone():
    for os_release, expected in {
        TRIXIE: [Install(("docker-buildx",))],
        NOBLE: [Install(("docker-buildx",))],
        BOOKWORM: [Unpack(("docker-buildx",)), Link],
    }.items():
        plan = engine_plan.plan(dataclasses.replace(complete(os_release), buildx=False))
        assert [type(a) if isinstance(a, Link) else a for a in plan] == expected


def test_what_is_unpacked_is_started_not_unpacked_again():
    dockerd = engine_plan.ENGINE / "usr/sbin/dockerd"
    everything = frozenset({"docker.io", "docker-cli", "containerd", "docker-buildx", "tini"})
    here = dataclasses.replace(
        complete(BOOKWORM), answers=False, dockerd=dockerd, unpacked=everything
    )
    assert engine_plan.plan(here) == [Start(dockerd, service=False)]


def test_the_unpacked_folder_is_replaced_with_all_that_it_held():
    here = dataclasses.replace(
        complete(BOOKWORM),
        commands=frozenset({"git", "mmdebstrap"}),
        unpacked=frozenset({"docker-buildx"}),
    )
    assert Unpack(("docker-cli", "docker-buildx")) in engine_plan.plan(here)


def test_an_unknown_distribution_is_refused_with_what_to_do():
    with pytest.raises(EngineError) as caught:
        engine_plan.plan(machine(FEDORA))
    assert "Fedora Linux" in caught.value.what
    assert "install by hand" in caught.value.hint
    stopped = dataclasses.replace(complete(FEDORA), answers=False, dockerd=Path("/usr/bin/dockerd"))
    with pytest.raises(EngineError) as caught:
        engine_plan.plan(stopped)
    assert "systemctl start docker" in caught.value.hint


def test_mmdebstrap_alone_is_no_reason_to_refuse_a_distribution():
    commands = frozenset({"docker", "git"})
    assert engine_plan.plan(dataclasses.replace(complete(FEDORA), commands=commands)) == []


def test_podman_is_refused():
    with pytest.raises(EngineError, match="podman"):
        engine_plan.plan(machine(TRIXIE, podman=True))


def test_an_engine_is_not_started_for_a_client_that_looks_elsewhere(monkeypatch, progress):
    monkeypatch.setenv("DOCKER_HOST", "tcp://10.0.0.1:2375")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    with pytest.raises(UsageError, match=r"no engine answers at tcp://10\.0\.0\.1:2375"):
        engine_install.fix([Start(Path("/usr/sbin/dockerd"), service=False)], progress)
    assert progress.steps == []


def test_only_root_fixes(monkeypatch, progress):
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(UsageError) as caught:
        engine_install.fix([Install(("git",))], progress)
    assert progress.steps == []
    assert caught.value.hint == "sudo builder doctor --fix"
    assert "apt-get install git" in caught.value.why


def test_sources_of_the_next_release_come_from_the_machines_own():
    sign = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"
    assert engine_install.successor_sources(INDEX_TARGETS) == [
        f"deb {sign} http://mirror.example/debian/ trixie main",
        f"deb {sign} http://mirror.example/debian/ trixie-updates main",
        f"deb {sign} http://mirror.example/debian-security/ trixie-security main",
    ]


def test_no_sources_without_debian():
    assert engine_install.successor_sources("") == []
    assert engine_install.successor_sources("Packages $(ORIGIN) $(CODENAME) http://x/\n") == []


def test_the_log_tail_keeps_the_reason():
    log = (
        'time="2026-11-20T11:54:45Z" level=info msg="Starting up"\n'
        'time="2026-11-20T11:54:45Z" level=warning msg="could not change group"\n'
        'time="2026-11-20T11:54:45Z" level=info msg="loading plugin"\n'
        "failed to start daemon: Devices cgroup isn't mounted\n"
    )
    assert engine_install.log_tail(log).splitlines() == [
        'time="2026-11-20T11:54:45Z" level=warning msg="could not change group"',
        "failed to start daemon: Devices cgroup isn't mounted",
    ]
