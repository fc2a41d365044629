"""A local server that speaks the shapes of GitHub's API, its refusals among them."""

import json
import os
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True)
class Answer:
    """One answer. `cut` bytes are missing at its end; `drip` sends a byte each few milliseconds."""

    status: int = 200
    body: object = None
    headers: dict[str, str] = field(default_factory=dict)
    cut: int = 0
    drip: bool = False


NOT_FOUND = Answer(404, {"message": "Not Found", "status": "404"})


class Api:
    """What to answer by path, and the requests that came. The last answer of a path stays."""

    def __init__(self) -> None:
        self.url = ""
        self.answers: dict[str, list[Answer]] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.threads: dict[str, list[dict[str, Any]]] = {"issues": [], "pulls": []}
        """What is under /repos/OWNER/NAME/issues and …/pulls, whatever the repository."""
        self.written: list[str] = []
        """Method and path of each POST and PATCH that was obeyed."""

    def on(self, path: str, *answers: Answer) -> None:
        self.answers[path] = list(answers)

    def compares(self, name: str, repository: Path, pin: str, head: str) -> list[str]:
        """Compare two commits of a real repository, and each step between them with its parent.

        The paths: that of the two first, then one a step, newest first.
        """
        git = _Git(repository)
        log = git("log", "--first-parent", "--format=%P %H", f"{pin}..{head}")
        steps = [(line.split()[0], line.split()[-1]) for line in log.splitlines()]
        whole = f"/repos/{name}/compare/{pin}...{head}"
        etag = {"ETag": '"1"'}
        self.on(whole, Answer(body=comparison(repository, pin, head), headers=etag))
        paths = [f"/repos/{name}/compare/{old}...{new}?per_page=1" for old, new in steps]
        for path, (old, new) in zip(paths, steps, strict=True):
            self.on(path, Answer(body=comparison(repository, old, new, page=1), headers=etag))
        return [whole, *paths]

    def take(self, path: str) -> Answer:
        waiting = self.answers.get(path, [NOT_FOUND])
        return waiting.pop(0) if len(waiting) > 1 else waiting[0]

    def thread(self, method: str, path: str, content: dict[str, Any]) -> Answer | None:
        """An issue or a pull request listed, made or changed; None for any other path.

        https://docs.github.com/rest/issues/issues, https://docs.github.com/rest/pulls/pulls
        """
        parts = urlsplit(path)
        found = re.fullmatch(r"/repos/([\w.-]+/[\w.-]+)/(issues|pulls)(?:/(\d+))?", parts.path)
        if found is None:
            return None
        if parts.path in self.answers:
            return self.take(parts.path)
        repository, kind, number = found.groups()
        if method == "GET":
            return Answer(body=self._listed(kind, parse_qs(parts.query)))
        self.written.append(f"{method} {parts.path}")
        if method == "POST":
            made = sum(map(len, self.threads.values())) + 1
            page = f"https://github.com/{repository}/{kind}/{made}"
            thread = {"number": made, "state": "open", "html_url": page, **content}
            self.threads[kind].append(thread)
            return Answer(201, thread)
        thread = next(one for one in self.threads[kind] if one["number"] == int(number))
        thread.update(content)
        return Answer(200, thread)

    def _listed(self, kind: str, query: dict[str, list[str]]) -> list[dict[str, Any]]:
        state, label = query.get("state", ["open"])[0], query.get("labels", [None])[0]
        head = query.get("head", [None])[0]
        return [
            one
            for one in self.threads[kind]
            if state in {"all", one["state"]}
            and (label is None or label in one["labels"])
            and (head is None or head.partition(":")[2] == one["head"])
        ]


def page(name: str, *, archived: bool = False) -> dict[str, object]:
    """The part of GitHub's repository object that matters here."""
    return {
        "full_name": name,
        "html_url": f"https://github.com/{name}",
        "default_branch": "master",
        "archived": archived,
    }


@dataclass(frozen=True)
class _Git:
    repository: Path

    def __call__(self, *words: str) -> str:
        command = ["git", "-C", str(self.repository), *words]
        environment = os.environ | {"TZ": "UTC"}
        return subprocess.run(
            command, check=True, capture_output=True, text=True, env=environment
        ).stdout


def comparison(repository: Path, base: str, head: str, *, page: int = 250) -> dict[str, Any]:
    """The part of GitHub's comparison that matters here, at most 250 commits and 300 files of it.

    https://docs.github.com/rest/commits/commits#compare-two-commits
    """
    git = _Git(repository)
    ahead, behind = (
        int(git("rev-list", "--count", between))
        for between in (f"{base}..{head}", f"{head}..{base}")
    )
    form = "--format=%H%x00%P%x00%cd%x00%cn%x00%B%x00"
    words = ["--reverse", "--date=format-local:%Y-%m-%dT%H:%M:%SZ", form]
    fields = git("log", *words, f"{base}..{head}").split("\0")[:-1]
    commits = [_commit(*fields[at : at + 5]) for at in range(0, len(fields), 5)]
    changed = git("diff", "--name-status", "-z", "--find-renames", f"{base}...{head}")
    return {
        "status": "diverged" if ahead and behind else "ahead" if ahead else "behind",
        "ahead_by": ahead,
        "behind_by": behind,
        "total_commits": ahead,
        "commits": commits[:page],
        "files": list(_files(iter(changed.split("\0")[:-1])))[:300],
    }


def _commit(sha: str, parents: str, date: str, committer: str, message: str) -> dict[str, Any]:
    return {
        "sha": sha.strip(),
        "commit": {"message": message.rstrip(), "committer": {"name": committer, "date": date}},
        "parents": [{"sha": parent} for parent in parents.split()],
    }


def _files(words: Iterator[str]) -> Iterator[dict[str, str]]:
    names = {"A": "added", "D": "removed", "M": "modified", "T": "changed"}
    for status in words:
        if status.startswith("R"):
            old, new = next(words), next(words)
            yield {"filename": new, "status": "renamed", "previous_filename": old, "patch": "@@"}
        else:
            yield {"filename": next(words), "status": names[status], "patch": "@@"}


@contextmanager
def serve(before: Callable[[], object] = lambda: None) -> Iterator[Api]:
    """The server; `before` is called ahead of each answer."""
    api = Api()
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

        def do_GET(self) -> None:
            api.asked.append((self.path, dict(self.headers)))
            before()
            self._answer(api.thread("GET", self.path, {}) or api.take(self.path))

        def do_POST(self) -> None:
            self._write()

        def do_PATCH(self) -> None:
            self._write()

        def _write(self) -> None:
            api.asked.append((self.path, dict(self.headers)))
            content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = api.thread(self.command, self.path, content) or api.take(self.path)
            self._answer(answer)

        def _answer(self, answer: Answer) -> None:
            body = b"" if answer.body is None else json.dumps(answer.body).encode()
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if answer.drip:
                self._drip(body)
            else:
                self.wfile.write(body[: len(body) - answer.cut])

        def _drip(self, body: bytes) -> None:
            for byte in body:
                try:
                    self.wfile.write(bytes([byte]))
                except OSError:
                    return
                if over.wait(0.01):
                    return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    api.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield api
    finally:
        over.set()
        server.shutdown()
        server.server_close()
