"""The registry that tests push to is a real one, and keeps what it has when it is started again."""

import requests

from tests.support.docker_registry import PASSWORD, USER, DockerRegistry


def test_it_answers_and_comes_back_on_its_port(docker_registry_server: DockerRegistry) -> None:
    host = docker_registry_server.host
    docker_registry_server.stop()
    docker_registry_server.start()
    assert docker_registry_server.host == host
    assert docker_registry_server.ask("GET", "").ok


def test_with_a_login_it_turns_strangers_away(docker_registry_with_login: DockerRegistry) -> None:
    url = f"http://{docker_registry_with_login.host}/v2/"
    assert requests.get(url, timeout=10).status_code == 401
    assert requests.get(url, auth=(USER, PASSWORD), timeout=10).ok
