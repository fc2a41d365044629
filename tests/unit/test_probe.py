"""The probes against a real HTTP server that gives right and wrong answers."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from builder.probe import server as probe_server
from builder.probe.identity import identity
from builder.probe.kv import kv
from builder.probe.server import Server
from builder.probe.thinking import thinking_off

Canned = dict[str, tuple[int, str]]
Serve = Callable[[Canned], Server]


class Handler(BaseHTTPRequestHandler):
    answers: Canned

    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer()

    def answer(self) -> None:
        if self.path not in self.answers:
            self.close_connection = True
            return
        status, body = self.answers[self.path]
        data = body.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_words: object) -> None: ...


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts a server that knows these answers, and hangs up on everything else."""
    started: list[ThreadingHTTPServer] = []
    with probe_server.session() as session:

        def start(answers: Canned) -> Server:
            handler = type("Canned", (Handler,), {"answers": answers})
            httpd = ThreadingHTTPServer(("127.0.0.1", 0), handler)
            started.append(httpd)
            # How often it looks whether to stop, in seconds.
            threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
            url = f"http://127.0.0.1:{httpd.server_port}"
            return Server(url, "the-alias", "OK", session, timeout_s=5.0)

        yield start
        for httpd in started:
            httpd.shutdown()
            httpd.server_close()


def models(*names: str) -> Canned:
    return {"/v1/models": (200, json.dumps({"data": [{"id": name} for name in names]}))}


def completion(**message: object) -> Canned:
    body = json.dumps({"choices": [{"message": {"role": "assistant", **message}}]})
    return {"/v1/chat/completions": (200, body)}


def test_identity_passes(serve: Serve) -> None:
    found = identity(serve(models("the-alias")))
    assert (found.probe, found.status) == ("identity", "pass")
    assert "the-alias" in found.observed


@pytest.mark.parametrize(
    ("answers", "observed"),
    [
        (models("model.gguf"), "it names model.gguf"),
        (models("another", "the-alias"), "it names another"),
        (models(), '200 {"data": []}'),
        ({"/v1/models": (200, "[1, 2]")}, "200 [1, 2]"),
        ({"/v1/models": (200, "<html>")}, "200 <html>"),
        ({"/v1/models": (404, "not here")}, "404 not here"),
        ({"/v1/models": (500, models("the-alias")["/v1/models"][1])}, "it names the-alias"),
        ({}, "no answer (ConnectionError"),
    ],
)
def test_identity_fails(serve: Serve, answers: Canned, observed: str) -> None:
    found = identity(serve(answers))
    assert found.status == "fail"
    assert found.observed.startswith(observed)


def test_thinking_off_passes(serve: Serve) -> None:
    found = thinking_off(serve(completion(content="OK")))
    assert (found.probe, found.status) == ("thinking_off", "pass")


@pytest.mark.parametrize(
    ("answers", "observed"),
    [
        (completion(content="OK", reasoning_content="hm"), "reasoning_content 'hm', content 'OK'"),
        (completion(content="", reasoning_content="hm"), "reasoning_content 'hm', content ''"),
        (completion(content="<think>hm</think>\n\nOK"), "a thinking mark in"),
        (completion(content="OK", note="<think>"), "a thinking mark in"),
        (completion(content="Something else"), "content 'Something else'"),
        (completion(content=" OK"), "content ' OK'"),
        (completion(content=""), "content ''"),
        (completion(content=None), "content None"),
        (completion(content=["OK"]), "content ['OK']"),
        (completion(), "content None"),
        ({"/v1/chat/completions": (200, '{"error": {"code": 500}}')}, '200 {"error"'),
        ({"/v1/chat/completions": (200, '{"choices": []}')}, '200 {"choices"'),
        ({"/v1/chat/completions": (400, "bad")}, "400 bad"),
        ({}, "no answer (ConnectionError"),
    ],
)
def test_thinking_off_fails(serve: Serve, answers: Canned, observed: str) -> None:
    found = thinking_off(serve(answers))
    assert found.status == "fail"
    assert found.observed.startswith(observed)


@pytest.mark.parametrize(
    ("content", "status"), [("Yes, OK.", "pass"), ("\n", "fail"), ("<think>", "fail")]
)
def test_thinking_off_without_a_script(serve: Serve, content: str, status: str) -> None:
    scripted = serve(completion(content=content))
    real = Server(scripted.url, scripted.alias, None, scripted.session)
    assert thinking_off(real).status == status


def test_a_proxy_in_the_environment_is_not_asked(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    assert identity(serve(models("the-alias"))).status == "pass"


@pytest.mark.parametrize("asked", ["turbo4", "q4_0", "f16"])
def test_kv_is_never_proven_by_asking(asked: str) -> None:
    found = kv(asked)
    assert (found.probe, found.status) == ("kv", "unproven")
    assert f"asked: {asked}" in found.observed
