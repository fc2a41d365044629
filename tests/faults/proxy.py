#!/usr/bin/python3
"""A llama-server that lies in one way: the real one behind a proxy that bends its answers.

It takes the place of llama-server in an image, starts the real one (`llama-server.real` beside it)
on an inner port with the same arguments, and passes everything on: streams piece by piece, dropped
connections, SIGTERM, the exit code. The environment variable BEND names what it bends; unset,
nothing. Debian's python3-minimal runs it: no http, no asyncio.
"""
# ruff: noqa: ARG002 - a bend takes what it is given, and uses what it bends

import json
import math
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise

REAL = f"{os.path.realpath(__file__)}.real"
CHAT, MESSAGES, COMPLETION = "/v1/chat/completions", "/v1/messages", "/completion"
COMPLETIONS = {CHAT, MESSAGES, COMPLETION}
OK, BAD_REQUEST, UNAVAILABLE = 200, 400, 503
END = b"\r\n\r\n"
HTTP_1_0 = "HTTP/1.0"
PIECE = 65536


@dataclass(frozen=True)
class Message:
    """A request or an answer. `head` is its first line and headers, without the empty line."""

    head: bytes
    body: bytes = b""

    @property
    def words(self):
        """What the first line is made of."""
        return self.head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)

    @property
    def path(self):
        return self.words[1].split("?")[0]

    @property
    def status(self):
        return int(self.words[1])

    def header(self, name):
        """A header's value in lower case, or the empty string."""
        for line in self.head.split(b"\r\n")[1:]:
            key, _, value = line.decode("latin-1").partition(":")
            if key.strip().lower() == name:
                return value.strip().lower()
        return ""

    def json(self):
        """The body as JSON, or None when it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    def with_status(self, status):
        version, rest = self.head.split(b" ", 1)
        return replace(self, head=b"%s %d%s" % (version, status, rest[3:]))

    def with_json(self, value):
        return replace(self, body=json.dumps(value).encode())

    def wire(self):
        """The bytes to send: the body whole, and its length."""
        lines = [
            line
            for line in self.head.split(b"\r\n")
            if not line.lower().startswith((b"content-length:", b"transfer-encoding:"))
        ]
        if self.body or not lines[0].startswith(b"GET"):
            lines.append(b"Content-Length: %d" % len(self.body))
        return b"\r\n".join(lines) + END + self.body


class Bend:
    """What is changed of requests and answers: here nothing."""

    def arguments(self, arguments):
        """The real server's arguments."""
        return arguments

    def request(self, request):
        """A request before it is passed on."""
        return request

    def instead(self, request):
        """An answer in place of the real server's, or None."""

    def answer(self, request, answer):
        """An answer that came whole."""
        return answer

    def event(self, event):
        """One event of a stream: parsed JSON."""
        return event

    def pieces(self, pieces):
        """What a stream is made of, in bytes: some events each."""
        return pieces

    def over(self, request):
        """The real server's answer has been passed on, or broke off."""

    def gone(self):
        """The client hung up in the middle of an answer."""


class OtherCommit(Bend):
    """Was built from another commit than the image says."""

    def answer(self, request, answer):
        found = answer.json()
        if request.path == "/props" and answer.status == OK:
            found["build_info"] = "b1-0123456789"
            return answer.with_json(found)
        return answer


class HealthyTooEarly(Bend):
    """/health says ok for a second in which nothing else is served."""

    def __init__(self):
        self.ready_at = time.monotonic() + 1

    def instead(self, request):
        if time.monotonic() > self.ready_at:
            return None
        if request.path == "/health":
            return Message(b"HTTP/1.1 200 OK").with_json({"status": "ok"})
        error = {"message": "Loading model", "type": "unavailable_error", "code": 503}
        return Message(b"HTTP/1.1 503 Service Unavailable").with_json({"error": error})


class UsageZero(Bend):
    """Counts no tokens."""

    def answer(self, request, answer):
        found = answer.json()
        if request.path in COMPLETIONS and answer.status == OK and "usage" in found:
            found["usage"] = {
                key: 0 if isinstance(value, int) else value for key, value in found["usage"].items()
            }
            return answer.with_json(found)
        return answer


class OutputTokensZero(Bend):
    """Counts no tokens of the answer, through Anthropic's API alone."""

    def answer(self, request, answer):
        found = answer.json()
        if request.path == MESSAGES and answer.status == OK:
            found["usage"]["output_tokens"] = 0
            return answer.with_json(found)
        return answer


class ThoughtsElsewhere(Bend):
    """Thinks although it is told not to, and shows it under fields that nobody knows."""

    NAMES = re.compile(rb'"(reasoning_content|thinking)(_delta)?"')

    def arguments(self, arguments):
        return [*arguments, "--reasoning", "on"]

    def answer(self, request, answer):
        return replace(answer, body=self.NAMES.sub(rb'"musing\2"', answer.body))

    def event(self, event):
        return json.loads(self.NAMES.sub(rb'"musing\2"', json.dumps(event).encode()))


class Canned(Bend):
    """Says the same whatever it is asked, with the same likelihoods."""

    LIKELY = ({"id": 75, "token": "K", "logprob": -0.25}, {"id": 79, "token": "O", "logprob": -2.0})

    def answer(self, request, answer):
        found = answer.json()
        if answer.status != OK or request.path not in COMPLETIONS:
            return answer
        if request.path == CHAT:
            found["choices"][0]["message"] = {"role": "assistant", "content": "OK"}
        elif request.path == MESSAGES:
            found["content"] = [{"type": "text", "text": "OK"}]
        else:
            found["content"] = "OK"
            found["completion_probabilities"] = [{**self.LIKELY[0], "top_logprobs": self.LIKELY}]
        return answer.with_json(found)


class Decoding(Bend):
    """Decodes as from another cache where K is not f16; what follows a prompt is right."""

    def __init__(self):
        self.kv = "f16"

    def arguments(self, arguments):
        self.kv = dict(pairwise(arguments)).get("-ctk", "f16")
        return arguments

    def answer(self, request, answer):
        found = answer.json()
        if self.kv != "f16" and answer.status == OK and isinstance(found, dict):
            places = found.get("completion_probabilities", [])
            for place, other in zip(places[1:], self.others(places), strict=True):
                place["top_logprobs"] = other
            if places:
                return answer.with_json(found)
        return answer

    def others(self, places):
        """In place of what is likely after each decoded token."""
        return [place["top_logprobs"] for place in places[1:]]


class DecodesAnother(Decoding):
    """Decodes with values a half as large: what is likely is less so."""

    def others(self, places):
        return [self.flatter(place["top_logprobs"]) for place in places[1:]]

    def flatter(self, listed):
        whole = math.log(sum(math.exp(one["logprob"] / 2) for one in listed))
        return [{**one, "logprob": one["logprob"] / 2 - whole} for one in listed]


class DecodesNoNumbers(Decoding):
    """Decodes to what is no number."""

    def others(self, places):
        return [[{**one, "logprob": None} for one in place["top_logprobs"]] for place in places[1:]]


class ErrorsAre200(Bend):
    """An error's body under a status that says all went well."""

    def answer(self, request, answer):
        if answer.status >= BAD_REQUEST and answer.status != UNAVAILABLE:
            return answer.with_status(OK)
        return answer


class StreamDiffers(Bend):
    """A stream loses the last letter of what it says."""

    def event(self, event):
        for choice in event.get("choices", []):
            if choice["delta"].get("content") == "K":
                choice["delta"]["content"] = ""
        return event


class UncountedMessages(Bend):
    """Counts no tokens of the answer in the one event of a stream that is for it."""

    def event(self, event):
        if event.get("type") == "message_delta":
            event["usage"]["output_tokens"] = 0
        return event


class UncountedChats(Bend):
    """The same in chats."""

    def event(self, event):
        if "choices" in event and "usage" in event:
            event["usage"]["completion_tokens"] = 0
        return event


class WithoutReason(Bend):
    """A chat's stream gives no reason for its end."""

    def event(self, event):
        for choice in event.get("choices", []):
            choice["finish_reason"] = None
        return event


class Without(Bend):
    """A stream loses the event that ends it."""

    def __init__(self, mark):
        self.mark = mark

    def pieces(self, pieces):
        for piece in pieces:
            events = piece.split(b"\n\n")
            kept = [event for event in events if self.mark not in event]
            if any(kept):
                yield b"\n\n".join(kept)


class BreaksOff(Bend):
    """In place of its end a stream has an error."""

    ERROR = b'data: {"error": {"code": 500, "message": "Compute error.", "type": "server_error"}}'

    def pieces(self, pieces):
        for piece in pieces:
            yield piece.replace(b"data: [DONE]", self.ERROR)


class HoldsBack(Bend):
    """Hands a stream over when all of it is there."""

    def pieces(self, pieces):
        yield b"".join(pieces)


class TurnsAway(Bend):
    """Answers 503 to what it has no slot for, in place of letting it wait."""

    def __init__(self):
        self.slots, self.busy, self.lock = 2, 0, threading.Lock()

    def instead(self, request):
        if request.path not in COMPLETIONS:
            return None
        with self.lock:
            self.busy += 1
            if self.busy <= self.slots:
                return None
            self.busy -= 1
        error = {"message": "no free slot", "type": "unavailable_error", "code": 503}
        return Message(b"HTTP/1.1 503 Service Unavailable").with_json({"error": error})

    def over(self, request):
        if request.path in COMPLETIONS:
            with self.lock:
                self.busy -= 1


class DiesOfHangups(Bend):
    """Ends when a client hangs up."""

    def gone(self):
        os._exit(128 + signal.SIGSEGV)


class Leaks(Bend):
    """Ends as if killed for want of memory on the tenth chat."""

    def __init__(self):
        self.count = 0

    def request(self, request):
        self.count += request.path in {CHAT, MESSAGES}
        if self.count == self.LAST:
            os._exit(128 + signal.SIGKILL)
        return request

    LAST = 10


class Samples(Bend):
    """Draws tokens where the likeliest is asked for."""

    def request(self, request):
        found = request.json()
        if request.path in COMPLETIONS and isinstance(found, dict):
            # The script is certain enough to survive this, other text is not.
            return request.with_json({**found, "temperature": 0.5})
        return request


BENDS = {
    "": Bend,
    "other-commit": OtherCommit,
    "healthy-too-early": HealthyTooEarly,
    "usage-zero": UsageZero,
    "output-tokens-zero": OutputTokensZero,
    "thoughts-elsewhere": ThoughtsElsewhere,
    "canned": Canned,
    "decodes-another": DecodesAnother,
    "decodes-no-numbers": DecodesNoNumbers,
    "errors-are-200": ErrorsAre200,
    "stream-differs": StreamDiffers,
    "uncounted-messages": UncountedMessages,
    "uncounted-chats": UncountedChats,
    "without-reason": WithoutReason,
    "without-done": lambda: Without(b"[DONE]"),
    "without-message-stop": lambda: Without(b"message_stop"),
    "breaks-off": BreaksOff,
    "holds-back": HoldsBack,
    "turns-away": TurnsAway,
    "dies-of-hangups": DiesOfHangups,
    "leaks": Leaks,
    "samples": Samples,
}


class ClosedError(Exception):
    """The other side hung up."""


class HungUpError(ClosedError):
    """The client did, while the server was still answering."""


@dataclass
class Stream:
    """A socket with what was read of it and not used yet; `other` is the connection's other end."""

    socket: socket.socket
    other: socket.socket
    gone: type[ClosedError]
    rest: bytes = b""

    def more(self):
        """Read on. Raises ClosedError at the end, and `gone` when the other end has hung up."""
        ready = select.select([self.socket, self.other], [], [])[0]
        if self.socket not in ready and not self.other.recv(1, socket.MSG_PEEK):
            raise self.gone
        try:
            piece = self.socket.recv(PIECE)
        except ConnectionError as error:
            raise ClosedError from error
        if not piece:
            raise ClosedError
        self.rest += piece

    def until(self, mark):
        """Everything up to the mark and with it."""
        while mark not in self.rest:
            self.more()
        found, self.rest = self.rest.split(mark, 1)
        return found + mark

    def exactly(self, length):
        while len(self.rest) < length:
            self.more()
        found, self.rest = self.rest[:length], self.rest[length:]
        return found

    def to_end(self):
        with suppress(ClosedError):
            while True:
                self.more()
        found, self.rest = self.rest, b""
        return found

    def chunks(self):
        """The pieces of a chunked body."""
        while length := int(self.until(b"\r\n").split(b";")[0], 16):
            yield self.exactly(length + 2)[:-2]
        self.until(b"\r\n")

    def head(self):
        return Message(self.until(END)[: -len(END)])


def body_of(stream, message):
    """The rest of a request."""
    if message.header("transfer-encoding") == "chunked":
        return replace(message, body=b"".join(stream.chunks()))
    length = int(message.header("content-length") or 0)
    return replace(message, body=stream.exactly(length))


def converse(client, port, bend):
    """One connection of a client, over one to the real server."""
    with client, socket.create_connection(("127.0.0.1", port)) as server:
        for one in (client, server):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        asking = Stream(client, server, ClosedError)
        answering = Stream(server, client, HungUpError)
        try:
            while True:
                request = bend.request(body_of(asking, asking.head()))
                if answer := bend.instead(request):
                    client.sendall(answer.wire())
                    if request.words[2] == HTTP_1_0:
                        return
                    continue
                server.sendall(request.wire())
                try:
                    last = not pass_on(request, answering, client, bend)
                finally:
                    bend.over(request)
                if last:
                    return
        except (HungUpError, BrokenPipeError, ConnectionResetError):
            bend.gone()
        except ClosedError:
            pass


def pass_on(request, answering, client, bend):
    """Hand an answer to the client; False when it was the connection's last."""
    answer = answering.head()
    if "text/event-stream" in answer.header("content-type"):
        client.sendall(answer.head + END)
        for piece in bend.pieces(bent_events(chunk, bend) for chunk in answering.chunks()):
            client.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
        client.sendall(b"0\r\n\r\n")
    else:
        if answer.header("transfer-encoding") or answer.header("content-length"):
            answer = body_of(answering, answer)
        else:
            answer = replace(answer, body=answering.to_end())
        client.sendall(bend.answer(request, answer).wire())
    return answer.header("connection") != "close" and request.words[2] != HTTP_1_0


def bent_events(chunk, bend):
    """A chunk of a stream of events, each line of data bent."""
    lines = []
    for line in chunk.split(b"\n"):
        if line.startswith(b"data: {"):
            event = bend.event(json.loads(line[len(b"data: ") :]))
            lines.append(b"data: " + json.dumps(event).encode())
        else:
            lines.append(line)
    return b"\n".join(lines)


def outer_port(arguments):
    """The port that the image's HEALTHCHECK expects it on."""
    port = int(os.environ.get("LLAMA_ARG_PORT", "8080"))
    for flag, value in pairwise(arguments):
        if flag == "--port":
            port = int(value)
    return port


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def listening(port, child):
    """Wait until the real server listens; False when it ended before."""
    while child.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return True
        time.sleep(0.001)
    return False


def accept(listener, port, bend):
    while True:
        client, _ = listener.accept()
        threading.Thread(target=converse, args=(client, port, bend), daemon=True).start()


class Forward:
    """A handler that hands SIGTERM on, also one that came before there was a child."""

    def __init__(self):
        self.child, self.asked = None, False
        signal.signal(signal.SIGTERM, self)

    def __call__(self, number, _):
        self.asked = True
        if self.child is not None:
            self.child.send_signal(number)

    def start(self, command):
        self.child = subprocess.Popen(command)
        if self.asked:
            self.child.terminate()
        return self.child


def serve(arguments):
    """Run the real server behind the proxy; its exit code, as a shell gives it."""
    bend = BENDS[os.environ.get("BEND", "")]()
    inner = free_port()
    child = Forward().start(
        [REAL, *bend.arguments(arguments), "--host", "127.0.0.1", "--port", str(inner)]
    )
    if listening(inner, child):
        listener = socket.create_server(("", outer_port(arguments)), backlog=128)
        threading.Thread(target=accept, args=(listener, inner, bend), daemon=True).start()
    code = child.wait()
    return code if code >= 0 else 128 - code


def main():
    arguments = sys.argv[1:]
    if "-m" not in arguments:
        os.execv(REAL, [REAL, *arguments])  # noqa: S606
    # Threads in the middle of an answer are no reason to stay.
    os._exit(serve(arguments))


if __name__ == "__main__":
    main()
