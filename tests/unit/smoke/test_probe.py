"""The probes against a real HTTP server: a good one passes, and each fault has its probe."""

import contextlib
import dataclasses
import io
import select
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from builder.common.progress import Silent
from builder.llama import client as probe_server
from builder.llama.client import Script, Server
from builder.model.finding import Finding
from builder.model.pins import Profile
from builder.smoke import servers as launches
from builder.smoke.probes import load as load_probe
from builder.smoke.probes import slots as slots_probe
from builder.smoke.probes.determinism import determinism
from builder.smoke.probes.identity import identity
from builder.smoke.probes.load import NONSENSE, load
from builder.smoke.probes.offload import decode_speed
from builder.smoke.probes.slots import slot_tokens, slots
from builder.smoke.probes.thinking import Reasoning, reasoning, thinking, thinking_by_request
from tests.support import misbehaving as bad
from tests.support.misbehaving import Body, Handler, Reaction, saying

Serve = Callable[..., Server]

SCRIPT = Script(reply="OK", thought="hm")
CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts a good server with other reactions to some paths."""
    with ExitStack() as stack:
        session = stack.enter_context(probe_server.session())

        def start(reactions: dict[str, Reaction] | None = None, **fields: object) -> Server:
            url = stack.enter_context(bad.serving(reactions or {}))
            profile = Profile(bad.ALIAS, bad.SLOTS, bad.SLOT_TOKENS)
            made = Server(url, session, profile, bad.COMMIT, SCRIPT, timeout_s=5.0)
            return dataclasses.replace(made, **fields)

        yield start


@pytest.fixture
def control(serve: Serve) -> Reasoning:
    """What a good server shows whose thinking is on."""
    thinking_on = {
        CHAT: saying(200, bad.THINKING_CHAT),
        MESSAGES: saying(200, bad.THINKING_MESSAGES),
    }
    return reasoning(serve(thinking_on))


def on(server: Server) -> Server:
    """The same server, meant to think."""
    return dataclasses.replace(server, profile=dataclasses.replace(server.profile, thinking=True))


PROBES: dict[str, Callable[[Server], Finding]] = {
    "identity": identity,
    "slots": slots,
    "thinking": lambda server: thinking(server, None),
    "thinking_by_request": thinking_by_request,
    "load": load,
    "determinism": determinism,
}


@pytest.mark.parametrize("name", PROBES)
def test_a_good_server_passes(serve: Serve, name: str) -> None:
    found = PROBES[name](serve())
    assert (found.probe, found.status) == (name, "pass"), found


GARBAGE: dict[str, Reaction] = {
    "number": saying(200, 5),
    "null": saying(200, None),
    "list": saying(200, []),
    "lists": saying(200, [[[]]]),
    "object": saying(200, {}),
    "words": saying(200, {"choices": "x", "content": "x", "data": "x", "tokens": "x"}),
    "wrong types": saying(200, {"choices": [{"message": 5}], "content": [5], "tokens": [True]}),
    "nested": saying(200, raw='{"content": ' + "[" * 900 + "]" * 900 + "}"),
    "nested too deeply": saying(200, raw="[" * 90_000),
    "html": saying(200, raw="<html><body>It works!</body></html>"),
    "empty": saying(200, raw=""),
    "an error": saying(200, {"error": {"code": 500, "message": "no"}}),
    "a refusal": saying(500, {"error": {"code": 500, "message": "no"}}),
    "elsewhere": lambda handler, _body: redirect(handler),
    "nothing": bad.hanging_up,
    "noise": lambda handler, _body: handler.wfile.write(b"\xff\xfe\x00 noise\r\n\r\n"),
    "cut": lambda handler, _body: cut(handler),
}


def redirect(handler: Handler) -> None:
    handler.send_response(302)
    handler.send_header("Location", f"http://127.0.0.1:9{handler.path}")
    handler.send_header("Content-Length", "0")
    handler.end_headers()


def cut(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"content": "OK"')


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("name", PROBES)
def test_garbage_is_a_finding_and_no_pass(serve: Serve, name: str, garbage: str) -> None:
    everywhere = dict.fromkeys([*bad.GOOD, "/no/such/path"], GARBAGE[garbage])
    found = PROBES[name](serve(everywhere))
    assert found.status != "pass", found
    assert len(found.observed) < 1000


def silent(handler: Handler, _body: Body) -> None:
    # Until the client hangs up.
    handler.rfile.read(1)


def trickling(handler: Handler, _body: Body) -> None:
    """A little every 20 ms, until the client hangs up: never silent for long."""
    handler.send_response(200)
    handler.end_headers()
    with contextlib.suppress(OSError):
        while not select.select([handler.connection], [], [], 0.02)[0]:
            handler.wfile.write(b'data: {"content": "x"}\n\n')


@pytest.mark.parametrize("reaction", [silent, trickling])
@pytest.mark.parametrize("name", ["thinking", "load", "determinism"])
def test_an_answer_without_end_is_a_finding(serve: Serve, name: str, reaction: Reaction) -> None:
    hanging = dict.fromkeys([CHAT, MESSAGES, "/completion"], reaction)
    found = PROBES[name](serve(hanging, timeout_s=0.2))
    assert found.status == "fail"
    assert "no answer" in found.observed


def test_an_answer_of_any_size_is_not_kept(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe_server, "_MOST_BYTES", 1000)
    found = identity(serve({"/v1/models": saying(200, "x" * 1000)}))
    assert "no answer (TooMuchError: more than 1000 bytes)" in found.observed


def test_a_proxy_in_the_environment_is_not_asked(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    assert identity(serve()).status == "pass"


@pytest.mark.parametrize(
    ("body", "at_once", "seconds"),
    [
        ({"prompt": "", "n_predict": 0}, 1, 120),
        # A thousand tokens at eight a second take 125 s.
        ({"prompt": "x" * 100, "max_tokens": 1024}, 1, 120 + 10 + 512),
        ({"prompt": [1] * 4000, "n_predict": 1}, 1, 120 + 400 + 0.5),
        ({"prompt": "x" * 100, "n_predict": 64}, 4, 120 + 4 * (10 + 32)),
        (None, 1, 120 + 0.4),
    ],
)
def test_an_answer_has_the_time_that_its_tokens_need(
    serve: Serve, body: object, at_once: int, seconds: float
) -> None:
    server = serve(timeout_s=None)
    assert probe_server.longest_s(server, body, at_once) == pytest.approx(seconds)


def test_an_answer_has_the_time_that_the_user_gives_it(serve: Serve) -> None:
    assert probe_server.longest_s(serve(timeout_s=7.0), {"max_tokens": 1024}, 4) == 7.0


def locked(handler: Handler, body: Body) -> None:
    if handler.headers["Authorization"] == "Bearer sesame":
        return bad.GOOD[handler.path](handler, body)
    return handler.say(401, {"error": {"code": 401, "type": "authentication_error"}})


LOCKED = {path: locked for path in bad.GOOD if path != "/v1/models"} | {
    "/health": saying(200, {"status": "ok"})
}


def test_a_server_that_wants_an_api_key_is_asked_nothing(serve: Serve) -> None:
    launched = launches.already_running(serve(LOCKED), 5.0, Silent())
    assert {one.status for one in launched.findings} == {"unproven"}
    why = "the server wants an API key (401 from /props): --api-key-file FILE"
    assert {one.observed for one in launched.findings} == {f"not asked: {why}"}


def test_a_server_with_another_api_key_says_so(serve: Serve) -> None:
    with probe_server.session("open") as session:
        launched = launches.already_running(serve(LOCKED, session=session), 5.0, Silent())
    why = "the server does not take this API key (401 from /props)"
    assert {one.observed for one in launched.findings} == {f"not asked: {why}"}


def test_a_server_that_has_its_api_key_is_asked(serve: Serve) -> None:
    with probe_server.session("sesame") as session:
        launched = launches.already_running(serve(LOCKED, session=session), 5.0, Silent())
    assert {one.probe: one.status for one in launched.findings} == dict.fromkeys(PROBES, "pass")


# --- identity ----------------------------------------------------------------------------------


def models(*names: str) -> dict[str, Reaction]:
    return {"/v1/models": saying(200, {"data": [{"id": name} for name in names]})}


def also_called(*aliases: object) -> dict[str, Reaction]:
    return {"/v1/models": saying(200, {"data": [{"id": bad.ALIAS, "aliases": aliases}]})}


def built_from(build_info: object) -> dict[str, Reaction]:
    return {"/props": saying(200, {**bad.PROPS, "build_info": build_info})}


@pytest.mark.parametrize(
    ("reactions", "observed"),
    [
        (models("model.gguf"), "it names model.gguf"),
        (models("another", bad.ALIAS), "it names another, the-alias"),
        (models(bad.ALIAS, "zebra"), "it names the-alias, zebra"),
        (also_called(bad.ALIAS, "zebra"), "it names the-alias, zebra"),
        (also_called("zebra"), "it names the-alias, zebra"),
        (also_called({}), "it names the-alias, {}"),
        (models(), '/v1/models: 200 {"data": []}'),
        ({"/v1/models": saying(404, "x")}, "/v1/models: 404"),
        (built_from("b0-unknown"), "build_info b0-unknown"),
        (built_from("b9326-0c1e57098"), "build_info b9326-0c1e57098"),
        (built_from("b9326-1c4788193"), "build_info b9326-1c4788193"),
        (built_from("1c4788192"), "build_info 1c4788192"),
        (built_from("b9326-1c47"), "build_info b9326-1c47"),
        (built_from("b9326-1c4788192-dirty"), "build_info b9326-1c4788192-dirty"),
        (built_from(None), "no build_info in /props"),
        ({"/props": saying(501, "x")}, "/props: 501"),
    ],
)
def test_identity_fails(serve: Serve, reactions: dict[str, Reaction], observed: str) -> None:
    found = identity(serve(reactions))
    assert found.status == "fail"
    assert found.observed.startswith(observed)


@pytest.mark.parametrize("commit", ["1c4788192", bad.COMMIT, bad.COMMIT.upper()])
def test_a_commit_may_be_known_in_part(serve: Serve, commit: str) -> None:
    assert identity(serve(commit=commit)).status == "pass"


def test_a_commit_that_nobody_knows_is_any_that_the_server_names(serve: Serve) -> None:
    found = identity(serve(built_from("b1-0123456"), commit=None))
    assert found.status == "pass"
    assert "nobody knows which commit" in found.observed


@pytest.mark.parametrize("build_info", ["b0-unknown", "b0-", "dev", None])
def test_no_commit_where_nobody_knows_it_proves_nothing(
    serve: Serve, build_info: str | None
) -> None:
    found = identity(serve(built_from(build_info), commit=None))
    assert found.status == "unproven"
    assert "nobody knows which commit" in found.observed


def test_aliases_may_be_listed(serve: Serve) -> None:
    assert identity(serve(also_called(bad.ALIAS))).status == "pass"


# --- slots -------------------------------------------------------------------------------------


def props(**fields: object) -> dict[str, Reaction]:
    return {"/props": saying(200, {**bad.PROPS, **fields})}


def served_whole(handler: Handler, body: Body) -> None:
    """A server that takes prompts of any length."""
    handler.say(200, bad.completion_body(body["prompt"]))


def cuts_long_prompts(handler: Handler, body: Body) -> None:
    handler.say(200, bad.completion_body(body["prompt"][: bad.SLOT_TOKENS // 2]))


def refuses_when_half_full(handler: Handler, body: Body) -> None:
    long = len(body["prompt"]) > bad.SLOT_TOKENS // 2
    handler.say(400, bad.TOO_LONG) if long else served_whole(handler, body)


def refuses_in_its_own_words(handler: Handler, body: Body) -> None:
    long = len(body["prompt"]) >= bad.SLOT_TOKENS
    handler.say(400, bad.REFUSAL) if long else served_whole(handler, body)


def dies_of_a_long_prompt() -> Reaction:
    dead: list[bool] = []

    def react(handler: Handler, body: Body) -> None:
        if dead:
            return bad.hanging_up(handler, body)
        dead.extend([True] * (len(body["prompt"]) >= bad.SLOT_TOKENS))
        return bad.completion(handler, body)

    return react


@pytest.mark.parametrize(
    ("reactions", "observed"),
    [
        (props(total_slots=4), "/props: total_slots 4, n_ctx 512"),
        (props(total_slots="2"), "/props: total_slots '2'"),
        (props(default_generation_settings={"n_ctx": 1024}), "/props: total_slots 2, n_ctx 1024"),
        (props(default_generation_settings=None), "/props: total_slots 2, n_ctx None"),
        ({"/slots": saying(200, bad.slot_states(count=1))}, "/slots: 1 slots, n_ctx [512]"),
        ({"/slots": saying(200, bad.slot_states(tokens=256))}, "/slots: 2 slots, n_ctx [256, 256]"),
        ({"/slots": saying(500, {})}, "/slots: 500"),
        ({"/completion": served_whole}, "a prompt of 513 tokens: 200"),
        ({"/completion": refuses_in_its_own_words}, "a prompt of 513 tokens: 400"),
        ({"/completion": refuses_when_half_full}, "a prompt of 511 tokens: 400"),
        ({"/completion": dies_of_a_long_prompt()}, "a prompt of 1 token after that: no answer"),
        ({"/completion": cuts_long_prompts}, "a prompt of 513 tokens: 200"),
    ],
)
def test_slots_fails(serve: Serve, reactions: dict[str, Reaction], observed: str) -> None:
    found = slots(serve(reactions))
    assert found.status == "fail"
    assert found.observed.startswith(observed)


def test_a_prompt_that_is_cut_short_in_silence_is_seen(serve: Serve) -> None:
    found = slots(serve({"/completion": cuts_long_prompts}))
    assert "a prompt of 511 tokens: the server read 256" in found.observed


def test_a_slot_of_a_unified_cache_may_have_all_of_it(serve: Serve) -> None:
    half = bad.SLOT_TOKENS // 2
    shared = Profile(bad.ALIAS, parallel=2, slot_tokens=half, kv_unified=True)
    assert slots(serve(profile=shared)).status == "pass"
    apart = dataclasses.replace(shared, kv_unified=False)
    assert slots(serve(profile=apart)).status == "fail"


@pytest.mark.parametrize("status", [403, 404, 405, 501])
def test_slots_may_be_off(serve: Serve, status: int) -> None:
    found = slots(serve({"/slots": saying(status, bad.REFUSAL)}))
    assert found.status == "pass"
    assert "/slots is off" in found.observed


def trained_for(tokens: object) -> dict[str, Reaction]:
    model = {"id": bad.ALIAS, "meta": {"n_ctx_train": tokens}}
    return {"/v1/models": saying(200, {"data": [model]})}


def test_slots_longer_than_the_model_was_trained_for_are_unproven(serve: Serve) -> None:
    asked = Profile(bad.ALIAS, bad.SLOTS, 2 * bad.SLOT_TOKENS)
    found = slots(serve(trained_for(bad.SLOT_TOKENS), profile=asked))
    assert found.status == "unproven"
    assert "the model was trained for 512 tokens, and no slot is longer" in found.observed
    assert "513 tokens refused, 511 served" in found.observed


def test_a_server_that_caps_no_slot_is_held_to_what_was_asked(serve: Serve) -> None:
    found = slots(serve(trained_for(bad.SLOT_TOKENS // 2)))
    assert (found.status, "trained" in found.observed) == ("pass", False)


def test_a_slot_as_long_as_the_model_was_trained_for_is_no_excuse(serve: Serve) -> None:
    asked = Profile(bad.ALIAS, bad.SLOTS, bad.SLOT_TOKENS // 2)
    assert slots(serve(trained_for(bad.SLOT_TOKENS), profile=asked)).status == "fail"


@pytest.mark.parametrize("trained", [256, 768, 131072, None, True])
def test_slots_shorter_than_asked_fail_whatever_the_model_was_trained_for(
    serve: Serve, trained: object
) -> None:
    asked = Profile(bad.ALIAS, bad.SLOTS, 2 * bad.SLOT_TOKENS)
    assert slots(serve(trained_for(trained), profile=asked)).status == "fail"


@pytest.mark.parametrize(
    ("speed", "status", "said"),
    [
        (0.5, "unproven", "513 tokens refused; 511 would take 1024 s and were not sent"),
        (500, "pass", "513 tokens refused, 511 served"),
        (None, "pass", "513 tokens refused, 511 served"),
    ],
)
def test_a_prompt_that_would_take_minutes_is_not_sent(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, speed: object, status: str, said: str
) -> None:
    monkeypatch.setattr(slots_probe, "SURE", 256)
    monkeypatch.setattr(slots_probe, "_SAMPLE", 128)

    def slow(handler: Handler, body: Body) -> None:
        if len(body["prompt"]) >= bad.SLOT_TOKENS:
            return handler.say(400, bad.TOO_LONG)
        answer = bad.completion_body(body["prompt"])
        return handler.say(200, {**answer, "timings": {"prompt_per_second": speed}})

    found = slots(serve({"/completion": slow}))
    assert found.status == status
    assert said in found.observed


def test_without_a_tokenizer_the_length_of_prompts_is_unproven(serve: Serve) -> None:
    found = slots(serve({"/tokenize": bad.not_found}))
    assert found.status == "unproven"
    assert "no prompt was measured" in found.observed


@pytest.mark.parametrize(("asked", "made"), [(2048, 2048), (2000, 2048), (1, 256)])
def test_a_slot_is_rounded_up_as_llama_cpp_does(asked: int, made: int) -> None:
    assert slot_tokens(asked) == made


# --- thinking ----------------------------------------------------------------------------------


def chats(**message: object) -> dict[str, Reaction]:
    delta = {name: value for name, value in message.items() if name != "tokens"}
    return {CHAT: bad.both(bad.chat_body(**message), bad.chat_events(delta))}


def messages(*content: Body, tokens: object = 3) -> dict[str, Reaction]:
    return {
        MESSAGES: bad.both(bad.messages_body(*content, tokens=tokens), bad.message_events(*content))
    }


def around(field: str, text: str) -> dict[str, Reaction]:
    """A good chat with one more field beside its choices."""
    return {CHAT: saying(200, {**bad.chat_body(content="OK"), field: text})}


@pytest.mark.parametrize(
    ("reactions", "why"),
    [
        (chats(content="OK", reasoning_content="hm"), "reasoning 'hm'"),
        (chats(content=None, reasoning_content="hm"), "the text is not 'OK'"),
        (chats(content="OK", reasoning="hm"), "text in reasoning"),
        (chats(content="OK", thoughts=[{"step": "hm"}]), "text in thoughts.step"),
        (chats(content="OK", inner="hm"), "text in inner"),
        (chats(content="<think>hm</think>\n\nOK"), "a thinking mark in content"),
        (chats(content="[THINK]hm[/THINK]OK"), "a thinking mark in content"),
        (around("note", "<think>"), "a thinking mark in note"),
        (around("reasoning", "hm"), "text in reasoning"),
        (chats(content="Something else"), "the text is not 'OK'"),
        (chats(content=" OK"), "the text is not 'OK'"),
        (chats(content=["OK"]), "content ['OK']"),
        (chats(content="OK", tokens=0), "usage: prompt 47, answer 0"),
        (chats(content="OK", tokens=None), "usage: prompt 47, answer None"),
        (chats(content="OK", tokens=True), "usage: prompt 47, answer True"),
        (chats(content="OK", tokens=1), "usage: prompt 47, answer 1"),
        (messages(bad.TEXT, tokens=1), "usage: prompt 47, answer 1"),
        (chats(content="OK", tokens=8), "more tokens than the text can have: 4"),
        ({CHAT: saying(200, {"choices": []})}, '200 {"choices": []}'),
        (around("error", "no"), "no completion"),
        ({CHAT: bad.not_found}, "not available (no server for chats)"),
        (messages(bad.THOUGHT, bad.TEXT), "reasoning 'hm'"),
        (messages({"type": "thinking", "thinking": ""}, bad.TEXT), "reasoning '…'"),
        (messages({"type": "redacted_thinking", "data": "x"}, bad.TEXT), "reasoning '…'"),
        (messages({"type": "musing", "text": "hm"}, bad.TEXT), "a block of type musing"),
        (messages({**bad.TEXT, "musing": "hm"}), "text in musing"),
        (messages({"type": "text", "text": "<think>hm</think>OK"}), "a thinking mark in text"),
        (messages({"type": "text", "text": "No"}), "the text is not 'OK'"),
        (messages(bad.TEXT, tokens=0), "usage: prompt 47, answer 0"),
        (messages(bad.TEXT, tokens=30), "more tokens than the text can have: 4"),
        (messages(), "the text is not 'OK'"),
        ({MESSAGES: saying(500, {})}, "no completion"),
    ],
)
def test_thinking_off_fails(
    serve: Serve, control: Reasoning, reactions: dict[str, Reaction], why: str
) -> None:
    found = thinking(serve(reactions), control)
    assert found.status == "fail"
    assert why in found.observed


@pytest.mark.parametrize(
    ("content", "status"), [("Yes, OK.", "pass"), ("\n", "fail"), ("<think>", "fail")]
)
def test_thinking_off_without_a_script(
    serve: Serve, control: Reasoning, content: str, status: str
) -> None:
    assert thinking(serve(chats(content=content), script=None), control).status == status


def test_without_a_script_hidden_thoughts_are_seen_in_the_usage(
    serve: Serve, control: Reasoning
) -> None:
    found = thinking(serve(chats(content="OK", tokens=60), script=None), control)
    assert found.status == "fail"


def test_a_control_that_shows_no_reasoning_proves_nothing(serve: Serve) -> None:
    found = thinking(serve(), reasoning(serve()))
    assert found.status == "unproven"
    assert f"the control server shows no reasoning in {CHAT} and {MESSAGES}" in found.observed


def test_a_failure_needs_no_control(serve: Serve) -> None:
    found = thinking(serve(chats(content="No")), reasoning(serve()))
    assert found.status == "fail"


def test_without_a_control_a_request_that_brings_no_thoughts_proves_nothing(serve: Serve) -> None:
    deaf = {**chats(content="OK"), **messages(bad.TEXT)}
    found = thinking(serve(deaf), None)
    assert found.status == "unproven"
    assert f"a request that asks for it shows no reasoning in {CHAT}" in found.observed


def test_without_messages_half_is_unproven(serve: Serve, control: Reasoning) -> None:
    found = thinking(serve({MESSAGES: bad.not_found}), control)
    assert found.status == "unproven"
    assert f"{MESSAGES} is not available" in found.observed


def test_messages_that_no_server_has_need_no_control(serve: Serve) -> None:
    without = {CHAT: saying(200, bad.THINKING_CHAT), MESSAGES: bad.not_found}
    found = thinking(serve({MESSAGES: bad.not_found}), reasoning(serve(without)))
    assert "nothing is proven" not in found.observed


def test_thinking_on_passes(serve: Serve) -> None:
    assert thinking(on(serve(bad.thinking_aloud())), None).status == "pass"


@pytest.mark.parametrize(
    ("reactions", "why"),
    [
        ({}, "no reasoning"),
        (
            chats(content="OK", reasoning_content="another", tokens=9),
            "the reasoning is not 'hm'",
        ),
        (chats(content="", reasoning_content="hm"), "the text is not 'OK'"),
        (chats(content="<think>hm</think>OK"), "a thinking mark in content"),
    ],
)
def test_thinking_on_fails(serve: Serve, reactions: dict[str, Reaction], why: str) -> None:
    good = {CHAT: saying(200, bad.THINKING_CHAT), MESSAGES: saying(200, bad.THINKING_MESSAGES)}
    found = thinking(on(serve({**(good if reactions else {}), **reactions})), None)
    assert found.status == "fail"
    assert why in found.observed


UNCOUNTED_CHAT = bad.both(bad.chat_body(content="OK"), bad.chat_events({"content": "OK"}, tokens=0))
UNCOUNTED_MESSAGE = bad.both(
    bad.messages_body(bad.TEXT), bad.message_events(*bad.OK_DELTAS, tokens=0)
)
SILENT_CHAT = bad.both(
    bad.chat_body(content="OK"), [bad.chat_event(content="OK"), bad.chat_end(1)[0], "[DONE]"]
)
THINKS_IN_CHAT_STREAMS = bad.both(
    bad.chat_body(content="OK"), bad.chat_events({"reasoning_content": "hm"}, {"content": "OK"})
)
STRAYS_IN_CHAT_STREAMS = bad.both(
    bad.chat_body(content="OK"), bad.chat_events({"reasoning": "hm"}, {"content": "OK"})
)
REDACTED_IN_MESSAGE_STREAMS = bad.both(
    bad.messages_body(bad.TEXT),
    [
        bad.message_events(*bad.OK_DELTAS)[0],
        {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "redacted_thinking", "data": "x"},
        },
        *bad.message_events(*bad.OK_DELTAS)[1:],
    ],
)
OVERCOUNTED_CHAT = bad.both(
    bad.chat_body(content="OK"), bad.chat_events({"content": "OK"}, tokens=30)
)
OVERCOUNTED_MESSAGE = bad.both(
    bad.messages_body(bad.TEXT), bad.message_events(*bad.OK_DELTAS, tokens=30)
)
UNDERCOUNTED_CHAT = bad.both(
    bad.chat_body(content="OK"), bad.chat_events({"content": "OK"}, tokens=1)
)
UNDERCOUNTED_MESSAGE = bad.both(
    bad.messages_body(bad.TEXT), bad.message_events(*bad.OK_DELTAS, tokens=1)
)
OF_A_SHORT_PROMPT = bad.both(
    bad.chat_body(content="OK"),
    [
        bad.chat_event(content="OK"),
        bad.chat_end(1)[0],
        {"choices": [], "usage": {"completion_tokens": 3, "prompt_tokens": 5}},
        "[DONE]",
    ],
)
COUNTED_APART = bad.both(
    bad.chat_body(content="OK", tokens=2), bad.chat_events({"content": "OK"}, tokens=4)
)
THINKS_IN_MESSAGE_STREAMS = bad.both(
    bad.messages_body(bad.TEXT), bad.message_events(bad.THOUGHT_DELTA, *bad.OK_DELTAS)
)


@pytest.mark.parametrize(
    ("reactions", "observed"),
    [
        ({CHAT: UNCOUNTED_CHAT}, f"{CHAT} as a stream: usage: prompt 47, answer 0"),
        ({CHAT: UNDERCOUNTED_CHAT}, f"{CHAT} as a stream: usage: prompt 47, answer 1"),
        ({MESSAGES: UNDERCOUNTED_MESSAGE}, f"{MESSAGES} as a stream: usage: prompt 47, answer 1"),
        ({CHAT: OF_A_SHORT_PROMPT}, f"{CHAT} as a stream: usage: prompt 5, answer 3"),
        (
            {CHAT: COUNTED_APART},
            f"{CHAT} as a stream: 4 tokens counted, 2 for the same in one piece",
        ),
        ({CHAT: SILENT_CHAT}, f"{CHAT} as a stream: usage: prompt None, answer None"),
        ({MESSAGES: UNCOUNTED_MESSAGE}, f"{MESSAGES} as a stream: usage: prompt 47, answer 0"),
        (
            {CHAT: OVERCOUNTED_CHAT},
            f"{CHAT} as a stream: more tokens than the text can have: 4",
        ),
        (
            {MESSAGES: OVERCOUNTED_MESSAGE},
            f"{MESSAGES} as a stream: more tokens than the text can have: 4",
        ),
        ({CHAT: STRAYS_IN_CHAT_STREAMS}, f"{CHAT} as a stream: reasoning 'hm'"),
        ({MESSAGES: REDACTED_IN_MESSAGE_STREAMS}, f"{MESSAGES} as a stream: reasoning '…'"),
        ({CHAT: THINKS_IN_CHAT_STREAMS}, f"{CHAT} as a stream: reasoning 'hm'"),
        ({MESSAGES: THINKS_IN_MESSAGE_STREAMS}, f"{MESSAGES} as a stream: reasoning 'hm'"),
    ],
)
def test_thoughts_and_usage_are_looked_for_in_streams_too(
    serve: Serve, control: Reasoning, reactions: dict[str, Reaction], observed: str
) -> None:
    found = thinking(serve(reactions), control)
    assert (found.status, found.observed) == ("fail", observed)


def test_a_real_models_stream_counts_a_token_for_at_least_every_other_piece(
    serve: Serve, control: Reasoning
) -> None:
    words = [{"content": f"{number} "} for number in range(9)]
    whole = bad.chat_body(content="".join(one["content"] for one in words), tokens=5)
    for tokens, status in ((5, "pass"), (4, "fail")):
        answer = bad.both(whole, bad.chat_events(*words, tokens=tokens))
        found = thinking(serve({CHAT: answer}, script=None), control)
        assert found.status == status, found.observed


def test_thinking_that_is_on_shows_in_streams_too(serve: Serve) -> None:
    silent = bad.both(bad.THINKING_CHAT, bad.chat_events({"content": "OK"}))
    found = thinking(on(serve({**bad.thinking_aloud(), CHAT: silent})), None)
    assert (found.status, found.observed) == ("fail", f"{CHAT} as a stream: no reasoning")


def test_a_stream_that_breaks_off_leaves_its_usage_unproven(
    serve: Serve, control: Reasoning
) -> None:
    broken = bad.both(bad.chat_body(content="OK"), [bad.chat_event(content="O"), bad.REFUSAL])
    found = thinking(serve({CHAT: broken}), control)
    assert found.status == "unproven"
    assert found.observed.startswith(f"{CHAT} as a stream counts nothing: an error in it")


def test_a_thought_that_fills_the_answer_leaves_the_text_unproven(serve: Serve) -> None:
    body = bad.chat_body(content="", reasoning_content="long")
    body["choices"][0]["finish_reason"] = "length"
    cut_short = bad.both(body, bad.chat_events({"reasoning_content": "long"}))
    found = thinking(on(serve({**bad.thinking_aloud(), CHAT: cut_short}, script=None)), None)
    assert found.status == "unproven"
    assert "before any text" in found.observed


def test_a_request_can_turn_thinking_on(serve: Serve) -> None:
    found = thinking_by_request(serve())
    assert found.status == "pass"
    assert found.observed == f"a request can, through {CHAT} and {MESSAGES}"


def test_a_request_cannot_turn_thinking_on(serve: Serve, control: Reasoning) -> None:
    deaf = {**chats(content="OK"), **messages(bad.TEXT)}
    found = thinking_by_request(serve(deaf), control)
    assert found.status == "pass"
    assert found.observed.startswith("a request cannot")


def test_of_a_model_that_nobody_saw_think_nothing_is_known(serve: Serve) -> None:
    deaf = {**chats(content="OK"), **messages(bad.TEXT)}
    found = thinking_by_request(serve(deaf))
    assert found.status == "unproven"
    assert "nobody has seen this model think" in found.observed


def test_whether_a_request_can_is_not_asked_where_thinking_is_on(serve: Serve) -> None:
    assert thinking_by_request(on(serve())).observed.startswith("not asked")


# --- load --------------------------------------------------------------------------------------


def mixes_up(handler: Handler, _body: Body) -> None:
    handler.say(200, bad.completion_body("never mind"))


def streams(*events: object) -> Reaction:
    """A good chat but for its streams."""

    def react(handler: Handler, body: Body) -> None:
        handler.stream(*events) if body.get("stream") else bad.chat(handler, body)

    return react


def streams_messages(*events: object) -> Reaction:
    def react(handler: Handler, body: Body) -> None:
        handler.stream(*events) if body.get("stream") else bad.messages(handler, body)

    return react


def handed_over_whole(reaction: Reaction) -> Reaction:
    """Streams are kept until their end, as a proxy does that holds answers back."""

    class Held(io.BytesIO):
        def flush(self) -> None: ...

    def react(handler: Handler, body: Body) -> None:
        out, handler.wfile = handler.wfile, Held()
        try:
            reaction(handler, body)
        finally:
            held, handler.wfile = handler.wfile, out
        with contextlib.suppress(OSError):
            out.write(held.getvalue())

    return react


def slow_messages(handler: Handler, body: Body) -> None:
    """Messages whose stream is made token by token when thoughts are asked for."""
    if not body.get("stream") or not bad.thinks(body):
        return bad.messages(handler, body)
    start, *pieces, delta, stop = bad.message_events(*[bad.THOUGHT_DELTA] * 40, tokens=40)
    return handler.stream_pieces(start, *pieces, made=lambda _seconds: [delta, stop])


CHAT_EVENTS = bad.chat_events({"content": "O"}, {"content": "K"})
MESSAGE_EVENTS = bad.message_events(*bad.OK_DELTAS)
CUT_SHORT = [{"choices": [{"finish_reason": "length", "delta": {}}]}, *bad.chat_end(1)[1:]]


def says_ok_to_all(handler: Handler, _body: Body) -> None:
    handler.say(200, bad.chat_body(content="OK"))


def dies_at(count: int) -> dict[str, Reaction]:
    """A server whose tenth completion, say, is its last."""
    asked: list[int] = []

    def react(handler: Handler, body: Body, path: str) -> None:
        asked.append(1)
        good = bad.GOOD[path] if len(asked) < count else bad.hanging_up
        good(handler, body)

    return {
        path: lambda handler, body, path=path: react(handler, body, path)
        for path in (CHAT, MESSAGES, "/completion")
    }


def refuses_streams(handler: Handler, body: Body) -> None:
    handler.say(200, bad.REFUSAL) if body.get("stream") else bad.completion(handler, body)


@pytest.mark.parametrize(
    ("reactions", "observed"),
    [
        ({"/completion": mixes_up}, "of 4 at once: 'xyz', not 'K'"),
        ({CHAT: saying(200, {"error": {"code": 500}})}, 'of 4 at once: 200 {"error"'),
        (around("error", "no"), "of 4 at once: 200"),
        ({CHAT: saying(503, {})}, "of 4 at once: 503"),
        (
            {CHAT: streams(*bad.chat_events({"content": "O"}))},
            f"{CHAT} as a stream: ('', 'O'), not ('', 'OK')",
        ),
        ({CHAT: THINKS_IN_CHAT_STREAMS}, f"{CHAT} as a stream: ('hm', 'OK'), not ('', 'OK')"),
        # Without its last chunk of choices, the last event, both.
        (
            {CHAT: streams(*CHAT_EVENTS[:2], *CHAT_EVENTS[3:])},
            f"{CHAT} as a stream: it ends without a finish_reason",
        ),
        ({CHAT: streams(*CHAT_EVENTS[:-1])}, f"{CHAT} as a stream: it ends without [DONE]"),
        (
            {CHAT: streams(*CHAT_EVENTS[:2])},
            f"{CHAT} as a stream: it ends without a finish_reason, it ends without [DONE]",
        ),
        ({CHAT: streams(*CHAT_EVENTS, bad.REFUSAL)}, f"{CHAT} as a stream: an error in it"),
        ({CHAT: streams(bad.REFUSAL, *CHAT_EVENTS)}, f"{CHAT} as a stream: an error in it"),
        ({CHAT: streams("OK", *CHAT_EVENTS)}, f"{CHAT} as a stream: an event that is not a JSON"),
        (
            {CHAT: streams(*bad.chat_events({"content": "OK"})[:1], *CUT_SHORT)},
            f"{CHAT} as a stream: it ends because of 'length', the whole of 'stop'",
        ),
        (
            {MESSAGES: streams_messages(*MESSAGE_EVENTS[:-2], MESSAGE_EVENTS[-1])},
            f"{MESSAGES} as a stream: it ends without a message_delta that has a stop_reason",
        ),
        (
            {MESSAGES: streams_messages(*MESSAGE_EVENTS[:-1])},
            f"{MESSAGES} as a stream: it ends without message_stop",
        ),
        (
            {MESSAGES: streams_messages(*MESSAGE_EVENTS[:-1], {"type": "error", "error": {}})},
            f"{MESSAGES} as a stream: an error in it",
        ),
        (
            {CHAT: handed_over_whole(bad.chat)},
            f"{CHAT} as a stream is handed over whole: 24 pieces came within",
        ),
        (
            {"/completion": handed_over_whole(bad.completion)},
            "/completion as a stream is handed over whole: 24 pieces came within",
        ),
        (
            {MESSAGES: handed_over_whole(slow_messages)},
            f"{MESSAGES} as a stream is handed over whole: 40 tokens came within",
        ),
        ({MESSAGES: saying(200, bad.messages_body(bad.TEXT))}, f"{MESSAGES} as a stream: no event"),
        ({CHAT: says_ok_to_all}, f"{CHAT} as a stream: no event"),
        ({"/no/such/path": saying(200, {})}, "an unknown path: 200"),
        ({"/no/such/path": bad.hanging_up}, "an unknown path: no answer"),
        ({"/no/such/path": lambda handler, _body: redirect(handler)}, "an unknown path: 302"),
        ({"/completion": refuses_streams}, "no stream to hang up on: no event in 200"),
        (dies_at(10), "a number as messages: no answer"),
        (dies_at(1), "of 4 at once: no answer"),
    ],
)
def test_load_fails(serve: Serve, reactions: dict[str, Reaction], observed: str) -> None:
    found = load(serve(reactions))
    assert found.status == "fail"
    assert found.observed.startswith(observed)


def test_in_mid_stream_is_claimed_of_no_stream_that_is_handed_over_whole(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[str] = []
    monkeypatch.setattr(launches, "_terminate", lambda _serving, when: ended.append(when))
    launches._terminate_in_stream(None, serve({"/completion": handed_over_whole(bad.completion)}))
    assert ended == []
    launches._terminate_in_stream(None, serve())
    assert ended == ["in mid-stream"]


def differs_in_streams(times: int) -> Reaction:
    """So many streams say something else than the whole answer."""
    left = list(range(times))

    def react(handler: Handler, body: Body) -> None:
        if body.get("stream") and not body.get("ignore_eos") and left:
            left.pop()
            return handler.stream(*bad.chat_events({"content": "OX"}))
        return bad.chat(handler, body)

    return react


def test_messages_that_come_as_they_are_made_pass(serve: Serve) -> None:
    found = load(serve({MESSAGES: slow_messages}))
    assert found.status == "pass"
    assert "too brief" not in found.observed
    assert "too brief there to see them come" in load(serve()).observed


def test_a_near_tie_of_a_real_model_is_no_fault_of_streams(serve: Serve) -> None:
    found = load(serve({CHAT: differs_in_streams(1)}, script=None))
    assert found.status == "pass"
    assert f"{CHAT} (a near tie at first: the prompt came from the cache)" in found.observed
    assert load(serve({CHAT: differs_in_streams(3)}, script=None)).status == "fail"


def test_a_script_has_no_near_ties(serve: Serve) -> None:
    assert load(serve({CHAT: differs_in_streams(1)})).status == "fail"


@pytest.mark.parametrize(
    ("path", "reaction"),
    [(CHAT, bad.chat), ("/completion", bad.completion)],
    ids=["chat", "completion"],
)
def test_how_streams_come_is_unproven_where_nobody_says_how_long_they_took(
    serve: Serve, path: str, reaction: Reaction
) -> None:
    def untimed(handler: Handler, body: Body) -> None:
        if body.get("ignore_eos"):
            return handler.stream({"content": "x", "stop": False}, {"stop": True})
        return reaction(handler, body)

    found = load(serve({path: untimed}))
    assert found.status == "unproven"
    assert "pieces, made in 0 ms" in found.observed
    assert (path == CHAT) == ("hung up in mid-stream, " in found.observed)


def test_how_streams_come_is_unproven_of_a_few_pieces(serve: Serve) -> None:
    def brief(handler: Handler, body: Body) -> None:
        if not body.get("ignore_eos"):
            return bad.chat(handler, body)
        pieces = [bad.chat_event(content="x")] * 3
        return handler.stream_pieces(*pieces, made=bad.chat_end)

    found = load(serve({CHAT: brief}))
    assert found.status == "unproven"
    assert "3 pieces, made in" in found.observed


@pytest.mark.parametrize("answer", [{}, {"choices": []}, {"choices": [{"message": "OK"}]}])
def test_what_is_served_to_nonsense_is_a_chat(serve: Serve, answer: Body) -> None:
    def half(handler: Handler, body: Body) -> None:
        if body.get("temperature") == "hot":
            return handler.say(200, answer)
        return bad.chat(handler, body)

    found = load(serve({CHAT: half}))
    assert found.status == "fail"
    assert found.observed.startswith("a word as temperature: 200")


def test_an_error_line_of_a_stream_is_an_error(serve: Serve) -> None:
    def fails_late(handler: Handler, body: Body) -> None:
        if not body.get("stream"):
            return bad.chat(handler, body)
        handler.stream(*CHAT_EVENTS[:2])
        handler.wfile.write(b'error: {"code": 500}\n\n')
        return None

    found = load(serve({CHAT: fails_late}))
    assert found.status == "fail"
    assert found.observed.startswith(f"{CHAT} as a stream: an error in it")


def test_nonsense_that_is_answered_as_if_it_made_sense_fails(serve: Serve) -> None:
    def canned(handler: Handler, body: Body) -> None:
        good = body.get("stream")
        bad.chat(handler, body) if good else handler.say(200, bad.chat_body(content="OK"))

    found = load(serve({CHAT: canned}))
    assert found.status == "fail"
    assert found.observed.startswith("a number as messages: 200")


def test_a_slot_that_stays_busy_after_its_client_hung_up_fails(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load_probe, "FREE_S", 0.1)
    busy: list[bool] = []

    def completes(handler: Handler, body: Body) -> None:
        busy.extend([True] * bool(body.get("stream")))
        bad.completion(handler, body)

    def tells(handler: Handler, _body: Body) -> None:
        handler.say(200, bad.slot_states(busy=bool(busy)))

    found = load(serve({"/completion": completes, "/slots": tells}))
    assert found.status == "fail"
    assert "still busy" in found.observed


@pytest.mark.parametrize(
    "reaction", [saying(501, bad.REFUSAL), saying(200, bad.slot_states(busy=True))]
)
def test_whether_the_slot_gets_free_is_not_told_where_it_cannot_be_seen(
    serve: Serve, reaction: Reaction
) -> None:
    found = load(serve({"/slots": reaction}))
    assert found.status == "pass"
    assert "slot free" not in found.observed
    assert "hung up in mid-stream" in found.observed


def wordless(handler: Handler, body: Body) -> None:
    """Has nothing to say to no messages."""
    if body.get("messages") == []:
        return handler.say(200, bad.chat_body(content="", tokens=1))
    return bad.chat(handler, body)


@pytest.mark.parametrize(
    ("reactions", "said"),
    [
        ({}, "malformed JSON for chats: 500, survived"),
        ({}, "empty messages: served"),
        ({CHAT: wordless}, "empty messages: served, without a word"),
        ({"/no/such/path": saying(404, raw="<html>")}, "an unknown path: 404 without a JSON error"),
        ({MESSAGES: bad.not_found}, f"{MESSAGES} not available"),
    ],
)
def test_what_load_survives_is_said(
    serve: Serve, reactions: dict[str, Reaction], said: str
) -> None:
    found = load(serve(reactions))
    assert found.status == "pass"
    assert said in found.observed


@pytest.mark.parametrize(
    "message",
    [{"reasoning_content": "hm", "content": "OK"}, {"content": "<think>hm</think>\n\nOK"}],
)
def test_thoughts_do_not_disturb_load(serve: Serve, message: Body) -> None:
    def thinking_aloud(handler: Handler, body: Body) -> None:
        if not isinstance(body.get("messages"), list) or body.get("temperature") == "hot":
            return bad.chat(handler, body)
        if body.get("ignore_eos"):
            return bad.chat(handler, body)
        return bad.both(bad.chat_body(**message), bad.chat_events(message))(handler, body)

    assert load(serve({CHAT: thinking_aloud})).status == "pass"


def test_a_server_that_is_gone_is_asked_no_more(serve: Serve) -> None:
    assert load(serve(dies_at(10))).observed.count("no answer") == 1


def test_load_asks_often_enough_for_a_server_that_dies_on_the_tenth_request(serve: Serve) -> None:
    asked: list[str] = []

    def counting(path: str) -> Reaction:
        def react(handler: Handler, body: Body) -> None:
            asked.append(path)
            bad.GOOD[path](handler, body)

        return react

    profile = Profile(bad.ALIAS, parallel=1, slot_tokens=bad.SLOT_TOKENS)
    counted = {path: counting(path) for path in (CHAT, MESSAGES, "/completion")}
    load(serve(counted, profile=profile))
    assert len(asked) >= 12


def test_no_two_kinds_of_nonsense_are_the_same() -> None:
    assert len({(one.path, one.data) for one in NONSENSE}) == len(NONSENSE)


# --- determinism -------------------------------------------------------------------------------


def wavers(first: Body, *, margin: float = 1.0) -> Reaction:
    """Says "xyz", and "xYz" to requests that have all of `first`; it was that sure of its y."""

    def react(handler: Handler, body: Body) -> None:
        other = all(body.get(key) == value for key, value in first.items())
        answer = bad.completion_body(body["prompt"], cached=12 * bool(body["cache_prompt"]))
        answer["content"] = "xYz" if other else "xyz"
        letters = [bad.step(ord(one), margin) for one in answer["content"]]
        handler.say(200, {**answer, "completion_probabilities": letters})

    return react


def alternates() -> Reaction:
    count: list[int] = []

    def react(handler: Handler, body: Body) -> None:
        count.append(1)
        wavers({} if len(count) % 2 else {"prompt": None}, margin=0.001)(handler, body)

    return react


def test_output_that_does_not_repeat_fails_however_near_the_tie(serve: Serve) -> None:
    found = determinism(serve({"/completion": alternates()}))
    assert found.status == "fail"
    assert "'xYz', then 'xyz'" in found.observed


def test_output_that_differs_from_the_cache_fails(serve: Serve) -> None:
    found = determinism(serve({"/completion": wavers({"cache_prompt": True})}))
    assert found.status == "fail"
    assert "'xyz', with the cache 'xYz'" in found.observed


def test_output_from_the_cache_may_differ_at_a_near_tie(serve: Serve) -> None:
    found = determinism(serve({"/completion": wavers({"cache_prompt": True}, margin=0.01)}))
    assert found.status == "pass"
    assert "but for 3 near ties" in found.observed


def test_a_cache_that_is_never_used_leaves_it_open(serve: Serve) -> None:
    found = determinism(serve({"/completion": served_whole}))
    assert found.status == "unproven"
    assert "the prompt cache was never seen in use" in found.observed


# --- the speed of decoding ---------------------------------------------------------------------


def timings(**fields: object) -> dict[str, Reaction]:
    good = {"predicted_n": 64, "predicted_per_second": 500.5}
    return {"/completion": saying(200, {"content": "x", "timings": {**good, **fields}})}


def test_the_speed_of_decoding_is_what_the_server_says(serve: Serve) -> None:
    assert decode_speed(serve()) == 500.5


@pytest.mark.parametrize(
    "reactions",
    [
        timings(predicted_n=1),
        timings(predicted_n=None),
        timings(predicted_per_second="fast"),
        timings(predicted_per_second=True),
        timings(predicted_per_second=0),
        timings(predicted_per_second=float("inf")),
        timings(predicted_per_second=float("nan")),
        {"/completion": saying(500, {})},
        {"/completion": saying(200, raw="<html>")},
        {"/completion": bad.hanging_up},
    ],
)
def test_a_speed_that_nobody_gives_is_none(serve: Serve, reactions: dict[str, Reaction]) -> None:
    assert decode_speed(serve(reactions)) is None
