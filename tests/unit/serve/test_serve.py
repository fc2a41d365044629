"""What is said of servers that are up, and of those that are not what was asked for."""

import dataclasses
import json
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from builder.llama import client as probe_server
from builder.llama.client import Server
from builder.model.pins import Profile
from builder.serve import report as serve_report
from builder.serve.containers import Spec
from builder.serve.run import NotServedError, Row, Up, require_locked, told_apart
from tests.support import misbehaving as bad
from tests.support.misbehaving import Reaction, saying

PROFILE = Profile(bad.ALIAS, bad.SLOTS, bad.SLOT_TOKENS, thinking=False)
SPEC = Spec(
    "local", "i:1", "sha256:0", "/m.gguf", (1, 2), "127.0.0.1", 8080, "holds", ("-c", "9"), {}
)
UP = Up("haiku", SPEC, "q4_0", 2, 512, embeddings=False, ready_s=1.25, replaced=["sonnet"])


@pytest.fixture
def start() -> Iterator[object]:
    """Starts a good server with other reactions to some paths."""
    with ExitStack() as stack:
        session = stack.enter_context(probe_server.session())

        def begin(reactions: dict[str, Reaction] | None = None) -> Server:
            url = stack.enter_context(bad.serving(reactions or {}))
            return Server(url, session, PROFILE)

        yield begin


def test_a_server_as_asked_is_told_nothing_of(start):
    assert told_apart(start(), PROFILE) == []


def test_another_alias_is_another_server(start):
    models = {"/v1/models": saying(200, {"data": [{"id": "somebody-else"}]})}
    with pytest.raises(NotServedError, match="is 'somebody-else', not the-alias"):
        told_apart(start(models), PROFILE)


def test_other_slots_than_asked_for_are_told(start):
    more = dataclasses.replace(PROFILE, slot_tokens=1024)
    assert told_apart(start(), more) == ["it has 2 slots of 512 tokens, not 2 of 1024"]


def keyed(handler: bad.Handler, _body: object) -> None:
    """A server that has one key."""
    known = handler.headers["Authorization"] == "Bearer sesame"
    handler.say(200 if known else 401, {})


ASKED = {"/props": keyed, "/v1/chat/completions": keyed}


def with_key(server: Server) -> Server:
    server.session.headers["Authorization"] = "Bearer sesame"
    return server


def test_a_server_with_keys_lets_in_its_own_and_nobody_else(start):
    require_locked(with_key(start(ASKED)))


@pytest.mark.parametrize("path", ASKED)
@pytest.mark.parametrize("status", [200, 400, 404, 500])
def test_a_server_that_answers_without_a_key_is_not_up(start, path, status):
    server = with_key(start({**ASKED, path: saying(status, {})}))
    with pytest.raises(NotServedError, match="serves whoever asks"):
        require_locked(server)


def test_a_server_that_does_not_take_its_own_key_is_not_up(start):
    server = start(dict.fromkeys(ASKED, saying(401, {})))
    with pytest.raises(NotServedError, match="does not take this API key"):
        require_locked(with_key(server))


def test_an_embedder_is_asked_for_a_vector(start):
    embedder = dataclasses.replace(PROFILE, embeddings=True)
    refusal = {"error": {"message": "Pooling type 'none' is not OAI compatible"}}
    (told,) = told_apart(start({"/v1/embeddings": saying(400, refusal)}), embedder)
    assert told.startswith("it makes no embeddings: Pooling type 'none'")
    assert told_apart(start({"/v1/embeddings": saying(200, {"data": []})}), embedder) == []


def test_one_that_is_up_says_how_to_use_it():
    text = serve_report.text(UP)
    assert "ready after 1.2 s, in place of sonnet: http://127.0.0.1:8080" in text
    assert 'eval "$(builder env haiku)"' in text
    assert "http://127.0.0.1:8080/v1, model local" in text


def test_an_embedder_is_for_texts():
    text = serve_report.text(dataclasses.replace(UP, embeddings=True))
    assert "http://127.0.0.1:8080/v1/embeddings" in text
    assert "builder env" not in text


def test_json_has_what_a_client_needs():
    found = json.loads(serve_report.to_json(UP))
    assert (found["schema"], found["alias"], found["url"]) == (1, "local", "http://127.0.0.1:8080")
    assert found["arguments"] == ["-c", "9"]


def test_the_table_says_how_often_the_engine_started_it_again():
    row = Row("a", "ready", "l", "u", "m", "i", "holds", "c", "t", restarts=3)
    assert serve_report.table([row])[0][-1] == "restarted 3 times by the engine"
