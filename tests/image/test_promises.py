"""What every image of ours promises, asked inside a container of it; no server is started."""

import re

import pytest

pytestmark = pytest.mark.engine

OURS = "/opt/llama"
PREFIX = "io.github.turboquant-builder"
DRIVER = re.compile(r"lib(cuda\.so\.1|nvidia-\S+)")


def lines(host, command):
    """What a command prints, without empty lines."""
    return [line for line in host.check_output(command).splitlines() if line]


def test_it_runs_as_a_user_without_rights(host):
    assert host.user().uid != 0


def test_its_user_may_keep_models_and_a_cache(host):
    for folder in ("/models", "/home/llama/.cache"):
        assert host.run(f"test -w {folder}").rc == 0, folder


def test_its_user_may_not_change_the_server(host):
    assert lines(host, f"find {OURS} -writable ! -type l") == []


def test_every_library_is_found_but_the_drivers(root):
    found = root.run(f"find {OURS} -type f -exec ldd {{}} + 2>/dev/null")
    missing = re.findall(r"(\S+) => not found", found.stdout)
    assert [name for name in missing if not DRIVER.match(name)] == []


def test_there_is_no_libcuda(root):
    assert lines(root, "find / -xdev -name 'libcuda.so*'") == []


@pytest.mark.parametrize("tool", ["gcc", "cc", "g++", "clang", "nvcc", "ld", "cmake", "ninja"])
def test_there_is_no_compiler(host, tool):
    assert not host.exists(tool)


def test_there_are_no_apt_lists(root):
    assert lines(root, "find /var/lib/apt/lists -type f ! -name lock") == []


def test_nobody_but_owners_may_write(root):
    command = "find / -xdev -not -path '/dev/*' -perm -0002 ! -type l ! -perm -1000"
    assert lines(root, command) == []


def test_the_server_is_on_the_path(host):
    assert host.find_command("llama-server") == "/usr/local/bin/llama-server"


def test_it_names_its_commit(host, image):
    command = host.run(f"{OURS}/llama-server --version")
    if "libcuda.so.1" in command.stderr:
        pytest.skip("its server starts only beside an NVIDIA driver")
    assert image.labels["org.opencontainers.image.revision"][:9] in command.stdout + command.stderr


def test_it_offers_its_forks_kv_types(host, image):
    command = host.run(f"{OURS}/llama-server --help")
    if "libcuda.so.1" in command.stderr:
        pytest.skip("its server starts only beside an NVIDIA driver")
    offered = command.stdout.partition("--cache-type-k ")[2].partition("(default")[0]
    wanted = [one for one in image.labels[f"{PREFIX}.kv-types"].split(",") if one]
    assert [one for one in [*wanted, "q8_0"] if one not in offered] == []


def test_its_healthcheck_can_be_run(host, image):
    how, program = image.attrs["Config"]["Healthcheck"]["Test"][:2]
    assert how == "CMD"
    assert host.run(f"test -x {program}").rc == 0


def test_an_init_or_the_server_is_what_starts(host, image):
    entrypoint = image.attrs["Config"]["Entrypoint"]
    assert entrypoint[-1] == f"{OURS}/llama-server"
    for program in (word for word in entrypoint if word.startswith("/")):
        # "#!" would be a script, and a shell that signals do not get past.
        assert host.check_output(f"head -c 4 {program} | tail -c 3") == "ELF", program
