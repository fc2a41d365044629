"""Compose files and units on a machine with the real compose, systemd and podman's generator."""

import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import requests

from builder.llama.gguf.scripted import scripted_model
from builder.model.pins import Pins
from builder.serve import compose, services
from builder.serve import systemd as units
from builder.serve.services import Service
from tests.engine.services_machine import RECORDED, RECORDER, Machine, started
from tests.faults.proxy import free_port

pytestmark = pytest.mark.engine

UNITS = "/run/systemd/system"
QUADLETS = "/etc/containers/systemd"
GENERATOR = "/usr/libexec/podman/quadlet"
NASTY = {"A": """50% of $HOME ${HOME} $$ \\t "two" 'one' ~ * ; | é"""}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scripted_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def machine(mainline_cpu_receipt: dict[str, Any], model: Path) -> Iterator[Machine]:
    bases = {one["role"]: one["reference"] for one in mainline_cpu_receipt["bases"]}
    with started(bases["runtime"], model.parent) as machine:
        yield machine


@dataclass(frozen=True)
class Pair:
    """Two services that hold the card, on one port, under names of this test's own."""

    first: Service
    second: Service

    @property
    def both(self) -> list[Service]:
        return [self.first, self.second]


@pytest.fixture
def pair(machine: Machine, model: Path, real_pins: Pins, mainline_cpu_image: str) -> Iterator[Pair]:
    own, port = secrets.token_hex(3), free_port()
    shipped = (real_pins.profiles["haiku"], real_pins.profiles["sonnet"])
    names = (f"test-{own}-haiku", f"test-{own}-sonnet")
    profiles = {
        name: replace(one, port=port, slot_tokens=4096)
        for name, one in zip(names, shipped, strict=True)
    }
    options = services.Options(
        mainline_cpu_image, dict.fromkeys(names, model), labelled="mainline-cpu"
    )
    made = Pair(*services.services(replace(real_pins, profiles=profiles), [], options))
    yield made
    for one in made.both:
        machine.run("systemctl", "stop", one.name)
        machine.run("docker", "rm", "--force", container(one))


def nasty(pair: Pair) -> Service:
    return replace(pair.first, env=NASTY, command=(*pair.first.command, NASTY["A"], "%n", "$1"))


def container(one: Service) -> str:
    return f"{one.name}.service"


def url(one: Service, path: str) -> str:
    return f"http://127.0.0.1:{one.port}{path}"


def alias(one: Service) -> str:
    """Who answers at this port."""
    answer = requests.get(url(one, "/v1/models"), timeout=10).json()
    return str(answer["data"][0]["id"])


def chat(one: Service) -> str:
    question = {"messages": [{"role": "user", "content": "Say OK"}], "max_tokens": 64}
    answer = requests.post(url(one, "/v1/chat/completions"), json=question, timeout=60).json()
    return str(answer["choices"][0]["message"]["content"])


def up(machine: Machine, text: str, one: Service, *words: str) -> tuple[int, str]:
    options = ("--file", "-", "--project-name", one.name, "--profile", one.profile)
    result = machine.run("docker", "compose", *options, *words, stdin=text)
    return result.returncode, result.stdout


def test_compose_reads_each_word_as_it_is_meant(machine: Machine, pair: Pair):
    one = nasty(pair)
    code, text = up(machine, compose.to_yaml([one]), one, "config", "--format", "json")
    assert code == 0, text
    found = json.loads(text)["services"][one.profile]
    # What `config` prints is a compose file too, with its dollars doubled.
    assert [word.replace("$$", "$") for word in found["command"]] == list(one.command)
    assert {key: word.replace("$$", "$") for key, word in found["environment"].items()} == NASTY


@pytest.mark.parametrize("name", ["haiku", "sonnet", "coder", "embed"])
def test_compose_takes_each_profile_of_pins_toml_with_a_gpu(
    machine: Machine, model: Path, real_pins: Pins, name: str
):
    options = services.Options("turboquant:spiritbuun-cuda12-sm86", {name: model})
    made = services.services(real_pins, [name], options)
    code, text = up(machine, compose.to_yaml(made), made[0], "config", "--quiet")
    assert (code, text) == (0, "")


def test_the_compose_file_serves_and_the_second_leaves_the_first_alone(
    machine: Machine, pair: Pair
):
    text = compose.to_yaml(pair.both)
    code, said = up(machine, text, pair.first, "up", "--wait", "--quiet-pull")
    assert code == 0, said
    try:
        assert requests.get(url(pair.first, "/health"), timeout=10).json() == {"status": "ok"}
        assert chat(pair.first) == "OK"
        code, said = up(machine, text, pair.second, "up", "--wait")
        assert code != 0
        assert "port is already allocated" in said
        assert alias(pair.first) == "local-haiku"
    finally:
        for one in pair.both:
            up(machine, text, one, "down")


def test_a_unit_has_started_when_it_serves_and_stops_the_one_before(machine: Machine, pair: Pair):
    machine.write(UNITS, units.files(pair.both, "systemd"))
    machine.must("systemctl", "daemon-reload")
    machine.must("systemctl", "start", pair.first.name)
    assert (alias(pair.first), chat(pair.first)) == ("local-haiku", "OK")
    machine.must("systemctl", "start", pair.second.name)
    assert alias(pair.second) == "local-sonnet"
    assert machine.run("systemctl", "is-active", pair.first.name).stdout == "inactive\n"
    assert machine.run("systemctl", "is-failed", pair.first.name).stdout == "inactive\n"


def test_a_unit_whose_server_is_killed_serves_again(machine: Machine, pair: Pair):
    machine.write(UNITS, units.files(pair.both, "systemd"))
    machine.must("systemctl", "daemon-reload")
    machine.must("systemctl", "start", pair.first.name)
    machine.must("docker", "kill", "--signal", "KILL", container(pair.first))
    again = 'until [[ $(systemctl show -P NRestarts "$0") == 1 ]]; do sleep 0.1; done'
    machine.must("timeout", "60", "bash", "-c", again, pair.first.name)
    # It joins the start that is under way.
    machine.must("systemctl", "start", pair.first.name)
    assert chat(pair.first) == "OK"


def test_what_a_killed_docker_command_leaves_is_removed(machine: Machine, pair: Pair):
    machine.write(UNITS, units.files([pair.first], "systemd"))
    machine.must("systemctl", "daemon-reload")
    machine.must("systemctl", "start", pair.first.name)
    before = machine.must("docker", "inspect", "--format", "{{.Id}}", container(pair.first))
    machine.must("systemctl", "kill", "--signal", "KILL", "--kill-whom", "main", pair.first.name)
    again = 'until [[ $(systemctl show -P NRestarts "$0") == 1 ]]; do sleep 0.1; done'
    machine.must("timeout", "60", "bash", "-c", again, pair.first.name)
    machine.must("systemctl", "start", pair.first.name)
    assert machine.must("docker", "inspect", "--format", "{{.Id}}", container(pair.first)) != before
    assert alias(pair.first) == "local-haiku"


def test_systemd_finds_nothing_wrong_with_units_for_a_gpu(machine: Machine, pair: Pair):
    with_gpu = [replace(one, gpu=True) for one in pair.both]
    files = units.files(with_gpu, "systemd")
    machine.write("/run/verified", files)
    paths = [f"/run/verified/{name}" for name in files]
    result = machine.run("systemd-analyze", "verify", *paths)
    assert (result.returncode, result.stdout) == (0, "")


def test_podmans_generator_makes_units_that_systemd_takes(machine: Machine, pair: Pair):
    with_gpu = [replace(one, gpu=True) for one in pair.both]
    generated(machine, with_gpu)
    paths = [f"/run/generated/{one.name}.service" for one in with_gpu]
    result = machine.run("systemd-analyze", "verify", *paths)
    assert (result.returncode, result.stdout) == (0, "")
    text = machine.must("cat", paths[1])
    assert f"Conflicts={pair.first.name}.service" in text
    assert "--device nvidia.com/gpu=all" in text
    assert f"--publish 127.0.0.1:{pair.first.port}:8080" in text
    assert "--health-on-failure kill" in text
    assert "--network turboquant-served" in text
    assert "--log-driver journald" in text
    network = machine.must("cat", "/run/generated/turboquant-network.service")
    assert "podman network create" in network


def generated(machine: Machine, made: list[Service]) -> None:
    """Write quadlets and let podman's generator make /run/generated of them alone."""
    machine.must("rm", "-rf", QUADLETS, "/run/generated")
    machine.write(QUADLETS, units.files(made, "quadlet"))
    dry = machine.run(GENERATOR, "-dryrun")
    assert dry.returncode == 0, dry.stdout
    machine.must("mkdir", "-p", "/run/generated")
    machine.must(GENERATOR, "-no-kmsg-log", "/run/generated")


@pytest.mark.parametrize("kind", ["systemd", "quadlet"])
def test_systemd_hands_on_each_word_as_it_is_meant(machine: Machine, pair: Pair, kind: str):
    one = nasty(pair)
    name = f"{one.name}.service"
    if kind == "quadlet":
        generated(machine, [one])
        text = machine.must("cat", f"/run/generated/{name}")
    else:
        text = units.files([one], "systemd")[name]
    for program in ("/usr/bin/docker", "/usr/bin/podman"):
        text = text.replace(program, RECORDER)
    # No server is there to wait for, and nothing that makes a network.
    without = ("Type=", "Restart=", "Requires=turboquant-network", "After=turboquant-network")
    lines = [line for line in text.splitlines() if not line.startswith(without)]
    at = lines.index("[Service]") + 1
    machine.write(UNITS, {name: "\n".join([*lines[:at], "Type=oneshot", *lines[at:], ""])})
    machine.must("rm", "-f", RECORDED)
    machine.must("systemctl", "daemon-reload")
    machine.must("systemctl", "start", name)
    words = machine.must("cat", RECORDED).split("\0")[:-1]
    assert words[-len(one.command) :] == list(one.command)
    assert words[words.index("--env") + 1] == f"A={NASTY['A']}"
