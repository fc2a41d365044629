"""Whatever a registry answers is an answer or a refusal in words: never a bug of builder's.

FUZZ_ANSWERS=200000 asks that many in place of what fits into CI, without a seed that is kept.
"""

import copy
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builder.build import render
from builder.common.errors import BuilderError
from builder.model.pins import Pins
from builder.pins import load as pins
from builder.registry import referrers, registry
from builder.registry.client import RegistryClient
from builder.registry.referrers import Artifact, Document
from builder.release import attach as attest
from builder.release import prune as retention
from builder.release import published, record
from builder.release import push as image_push
from builder.release.record import Index, Release
from builder.verify.claims.subject import Claimed, Signed
from builder.verify.run import judge, to_json
from tests.conftest import Recorder
from tests.support import lying_registry
from tests.support.lying_registry import REPOSITORY, Answer, World

ANSWERS = int(os.environ.get("FUZZ_ANSWERS", "5000"))
REFUSALS = {2, 6, 7, 8}

DEEP, HUGE, HALF = "@deep@", "@huge@", "@half@"
WORDS = {
    f'"{DEEP}"': "[" * 100_000 + "]" * 100_000,
    f'"{HUGE}"': "1" * 5000,
    f'"{HALF}"': '"\\ud800"',
}
"""What Python's own writer of JSON would not write."""

ODD: list[Any] = [
    None, True, 0, -1, 1.5, 10**30, 10**400, 1e308, "", "x", "\0", "\x1b[2J", "../../../x",
    "sha256:../../../x", "sha256:" + "A" * 64, "sha256:" + "0" * 64, "sha512:" + "0" * 128,
    "b" + "9" * 5000, "٣" * 9, "9999-99-99T99:99:99Z", "x" * 100_000, [], {}, [[]], [None], [{}],
    {"a": {}}, {"": None}, {"digest": {}}, [1] * 2000, DEEP, HUGE, HALF,
]  # fmt: skip
RAW = [
    b"", b"null", b"[]", b'"x"', b"1", b"{", b"<html><body>Sign in</body></html>", b"\xff\xfe{",
    b"\xef\xbb\xbf{}", b"[" * 100_000, b'{"a":' * 100_000, b"1" * 5000, b"NaN", b'{"a": 1e999}',
    b"\0" * 1000, b'{"config": {}, "layers": [], "manifests": []}',
]  # fmt: skip
DOCUMENTS = [
    "config", "image", "index", "artifact", "referrers", "tags", "token",
    "sbom", "provenance", "audit", "smoke",
]  # fmt: skip
HEADERS = {
    "Content-Type": ["", "text/html", "application/json; charset=utf-8", "\t;", "x" * 5000],
    "Docker-Content-Digest": ["", "x", "sha256:", "sha256:../..", "sha256:" + "0" * 64, "sha512:0"],
    "Link": [
        '</v2/me/llama/tags/list?n=1000>; rel="next"', "<>; rel=next", "<http://[::1>; rel=next",
        '<https://elsewhere.example/x>; rel="next"', '<//>; rel="next"', '<:99999999>; rel="next"',
    ],
    "Retry-After": [
        "", "0", "-1", "9" * 400, "x", "Fri, 31 Dec 9999 23:59:59 -2359",
        "Fri, 20 Nov 2026 00:00:00 +99999999999999999999", "٣", "1e9", "Mon, 99 Foo 0 99:99:99",
    ],
    "WWW-Authenticate": [
        "", "Bearer", 'Bearer realm="x"', 'Bearer realm="https://[::1"', "Negotiate x", "Basic",
        'Bearer realm="https://registry.example.org/token",service="x",scope="\0"',
        'Bearer realm="https://registry.example.org:99999999/token"', 'Bearer realm="ftp://x/y"',
    ],
    "Location": [
        "", "/", "http://[", "https://" + "a" * 300, "https://.", "x:y", "//", "https://x:99999999/",
        "https://\u20ac.example/", "\ud800",
    ],
    "Date": ["", "x", "Fri, 20 Nov 2026 00:00:00 +99999999999999999999"],
    "Content-Encoding": ["gzip", "br", "x", "gzip, gzip"],
}  # fmt: skip
STATUSES = [200, 201, 202, 204, 206, 302, 307, 400, 401, 403, 404, 405, 429, 451, 500, 503, 999]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    items = value.items() if isinstance(value, dict) else ()
    for key, inner in items or (enumerate(value) if isinstance(value, list) else ()):
        yield from places(inner, (*path, key))


@st.composite
def bends(draw: st.DrawFn) -> Callable[[str, Any], bytes]:
    """One document is bent in some of its places, or is no document at all."""
    chosen = draw(st.sampled_from(DOCUMENTS))
    raw = draw(st.one_of(st.none(), st.none(), st.none(), st.sampled_from(RAW)))
    cut = draw(st.one_of(st.none(), st.none(), st.none(), st.integers(0, 400)))
    numbers = draw(st.lists(st.integers(0, 10_000), min_size=1, max_size=3))
    values = [draw(st.one_of(st.just("@gone@"), st.sampled_from(ODD))) for _ in numbers]

    def bend(name: str, content: Any) -> bytes:
        if name != chosen:
            return json.dumps(content).encode()
        if raw is not None:
            return raw
        bent = copy.deepcopy(content)
        for number, value in zip(numbers, values, strict=True):
            bent = put(bent, number, copy.deepcopy(value))
        text = json.dumps(bent)
        for mark, word in WORDS.items():
            text = text.replace(mark, word)
        return text.encode()[:cut]

    return bend


def put(content: Any, number: int, value: Any) -> Any:
    everywhere = list(places(content))
    path = everywhere[number % len(everywhere)]
    if not path:
        return None if value == "@gone@" else value
    holder = content
    for key in path[:-1]:
        holder = holder[key]
    if value == "@gone@":
        del holder[path[-1]]
    else:
        holder[path[-1]] = value
    return content


@st.composite
def twists(draw: st.DrawFn) -> Callable[[str, Answer], Answer] | None:
    """Some answers have another status or another header."""
    if draw(st.integers(0, 3)):
        return None
    kind = draw(
        st.sampled_from(["manifests", "blobs", "tags", "referrers", "token", "POST", "PUT"])
    )
    status = draw(st.one_of(st.none(), st.sampled_from(STATUSES)))
    header = draw(st.sampled_from(sorted(HEADERS)))
    value = draw(st.sampled_from(HEADERS[header]))

    def twist(asked: str, answer: Answer) -> Answer:
        if asked != kind:
            return answer
        made = replace(answer, headers={**answer.headers, header: value})
        return made if status is None else replace(made, status=status)

    return twist


@pytest.fixture
def everything(tiny_pins: Path) -> Pins:
    return pins.load(tiny_pins)


@pytest.fixture
def folder(tmp_path: Path, everything: Pins) -> Path:
    """A record with an old release and a newer one."""
    newer = lying_registry.a_release(everything)
    older = replace(newer, name=newer.name.replace("b77", "b76"), digest="sha256:" + "9" * 64)
    index = Index(REPOSITORY, {"tiny": newer.name}, releases=[newer.name, older.name])
    for one in (older, newer):
        record.write_release(tmp_path / "record", one, index)
    return tmp_path


def verified(release: Release, known: Pins, _folder: Path) -> None:
    with RegistryClient(REPOSITORY) as client:
        image = published.read(client, f"{REPOSITORY}:tiny", Recorder())
    for signed in (Signed("unproven", ""), Signed("pass", "", [image.documents.get("x") or {}])):
        made = judge(f"{REPOSITORY}:tiny", Claimed(image, known, signed, True, release))
    assert to_json(made).encode()


def source_fetched(_release: Release, _known: Pins, _folder: Path) -> None:
    with RegistryClient(REPOSITORY) as client:
        _, manifest = published.locate(client, f"{REPOSITORY}:tiny")
        attest.fetch_source(client, manifest.digest, Recorder())


def attached(_release: Release, _known: Pins, _folder: Path) -> None:
    with RegistryClient(REPOSITORY) as client:
        _, manifest = published.locate(client, f"{REPOSITORY}:tiny")
        document = Document("a.json", "application/json", b"{}")
        referrers.attach(client, manifest, [Artifact("a/b", [document])], lying_registry.TIMES)


def pruned(_release: Release, _known: Pins, folder: Path) -> None:
    request = retention.Request(keep=1, keep_days=0, dry_run=True)
    retention.prune(request, folder / "record", Recorder())


def looked_up(_release: Release, _known: Pins, _folder: Path) -> None:
    wanted = registry.image(f"{REPOSITORY}:tiny")
    registry.digest(wanted)
    registry.holds(wanted, "sha256:" + "0" * 64)
    registry.labels(wanted)


def moved(release: Release, _known: Pins, _folder: Path) -> None:
    with RegistryClient(REPOSITORY) as client:
        digest = client.digest(release.name)
        manifest = client.complete(digest or "sha256:" + "0" * 64)
        image_push._known([manifest], client)
        client.put(manifest, "tiny")


USES = [verified, verified, source_fetched, attached, pruned, looked_up, moved]


@pytest.fixture
def nothing_takes_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    # What pins render is no matter of answers, and takes most of the time.
    kept: dict[Any, Any] = {}
    rendered = render.render

    def remembered(known: Pins, name: str, base: str | None = None) -> Any:
        fork = known.forks["tiny"]
        key = (name, base, fork.commit, fork.build_number, fork.date)
        if key not in kept:
            kept[key] = rendered(known, name, base)
        return kept[key]

    monkeypatch.setattr(render, "render", remembered)


@pytest.mark.usefixtures("nothing_takes_time", "private_cache")
def test_no_answer_is_a_bug_of_builders(everything, folder, monkeypatch):
    release = lying_registry.a_release(everything)
    now: list[World] = []
    outcomes: Counter[str] = Counter()
    lying_registry.stand_in(monkeypatch, lambda: now[-1])

    @settings(
        max_examples=ANSWERS,
        deadline=None,
        database=None,
        derandomize="FUZZ_ANSWERS" not in os.environ,
        suppress_health_check=list(HealthCheck),
    )
    @given(bends(), twists(), st.booleans(), st.booleans(), st.sampled_from(USES))
    def ask(bend, twist, api, multi, use):
        now[:] = [World(release, bend, api=api, multi=multi, twist=twist)]
        try:
            use(release, everything, folder)
        except BuilderError as error:
            assert error.exit_code in REFUSALS, error  # noqa: PT017 -- any other error fails it
            f"{error.what}{error.why}{error.hint}".encode()
            outcomes[f"{error.exit_code}"] += 1
        else:
            outcomes["answered"] += 1

    ask()
    assert outcomes["answered"] > ANSWERS / 20
    assert outcomes["6"] > ANSWERS / 20
    print(dict(outcomes))  # noqa: T201 -- for whoever runs it by hand


@pytest.mark.usefixtures("nothing_takes_time", "private_cache")
@pytest.mark.parametrize("api", [True, False])
@pytest.mark.parametrize("multi", [True, False])
@pytest.mark.parametrize("use", dict.fromkeys(USES))
def test_what_is_not_bent_is_taken(everything, folder, monkeypatch, use, multi, api):
    release = lying_registry.a_release(everything)
    world = World(release, api=api, multi=multi)
    lying_registry.stand_in(monkeypatch, lambda: world)
    use(release, everything, folder)
