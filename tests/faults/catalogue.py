"""The faults: each a good image with one change, and the row of a verdict that must catch it."""

from dataclasses import dataclass
from typing import Literal

SLOT_TOKENS = 512
"""The context of each of the smoke's two slots."""

Source = Literal["image", "wrapper", "proxy"]
Verb = Literal["smoke", "audit"]
Status = Literal["fail", "unproven"]


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a verb's table."""

    verb: Verb
    name: str

    def __str__(self) -> str:
        return f"{self.verb}: {self.name}"


@dataclass(frozen=True, slots=True)
class Change:
    """What else a fault changes besides the row that catches it, and why it has to."""

    row: Row
    status: Status
    why: str


@dataclass(frozen=True, slots=True)
class Library:
    """A shared library, as assembly code and words for the linker."""

    assembly: str = ""
    link: str = ""


@dataclass(frozen=True, slots=True)
class Fault:
    """A good image with one change.

    `lines` are Dockerfile lines on top of `source`; `library` is at /made.so of their stage `made`.
    All rows of the verbs named that are not named here stay as they are for the source; `by_luck`
    may also be unproven.
    """

    name: str
    source: Source
    lines: str
    caught_by: Row
    besides: tuple[Change, ...] = ()
    library: Library | None = None
    by_luck: str = ""

    @property
    def verbs(self) -> list[Verb]:
        """The verbs that have something to say about it."""
        rows = [self.caught_by, *(one.row for one in self.besides)]
        return list(dict.fromkeys(row.verb for row in rows))

    def expected(self, verb: Verb) -> dict[str, Status]:
        """The rows of a verb that change, and what they become."""
        changes = {one.row: one.status for one in self.besides} | {self.caught_by: "fail"}
        return {row.name: status for row, status in changes.items() if row.verb == verb}


SOURCES: dict[Source, str] = {
    "image": "FROM ${IMAGE}",
    "wrapper": """\
FROM ${IMAGE}
USER root
RUN mv /opt/llama/llama-server /opt/llama/llama-server.real
COPY --chmod=755 wrapper.sh /opt/llama/llama-server
USER 10001:10001""",
    "proxy": """\
FROM ${IMAGE}
USER root
RUN apt-get update \\
 && apt-get install -y --no-install-recommends python3-minimal \\
 && mv /opt/llama/llama-server /opt/llama/llama-server.real
COPY --chmod=755 proxy.py /opt/llama/llama-server
USER 10001:10001""",
}
"""What a fault begins with: the image; the image with wrapper.sh, or proxy.py, as its server.

None of the three is at fault.
"""


def dockerfile(source: Source, lines: str = "", library: Library | None = None) -> str:
    """The Dockerfile of a fault; without lines, of what it begins with."""
    stages = ["ARG IMAGE", SOURCES[source], lines, ""]
    if library is not None:
        stages.insert(1, _made(library))
    return "\n".join(stages)


def _made(library: Library) -> str:
    return f"""\
FROM ${{IMAGE}} AS assembler
USER root
RUN apt-get update && apt-get install -y --no-install-recommends binutils
FROM assembler AS made
COPY <<'EOF' /made.s
{library.assembly}
EOF
RUN as -o /made.o /made.s && ld -shared {library.link} -o /made.so /made.o"""


def _as_root(lines: str) -> str:
    return f"USER root\n{lines}\nUSER 10001:10001"


def _smoke(name: str) -> Row:
    return Row("smoke", name)


def _audit(name: str) -> Row:
    return Row("audit", name)


AVX2 = Library("""\
.globl add
add:
  vpaddd %ymm0, %ymm1, %ymm2
  ret""")

SM_90 = Library("""\
.section .nv_fatbin, "a"
.long 0xba55ed50
.short 1, 16
.quad 80
.short 2, 0x101
.long 64
.quad 16
.long 0, 0
.short 0, 9
.long 90, 0, 0
.quad 0x11
.fill 32, 1, 0""")
"""A unit's header (16 bytes), an entry's (64) that names architecture 90, and no code (16)."""

RUNPATH = Library(link="-rpath /build/bin")
CALLS_NOBODY = Library("""\
.globl start
start:
  jmp ggml_backend_of_another_commit@PLT""")
DRIVER = Library(link="-soname libcuda.so.1")
MANAGEMENT = Library(link="-soname libnvidia-ml.so.1")

PRIVATE_KEY = """\
RUN install -d -m 700 /root/.ssh \\
 && printf -- '-----BEGIN %s PRIVATE KEY-----\\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmU\\n' OPENSSH \\
    >/root/.ssh/id_ed25519
RUN rm -r /root/.ssh"""

APT_LOGIN = """\
RUN echo 'machine mirror.example.org login me password hunter2' \\
    >/etc/apt/auth.conf.d/mirror.conf"""
MIRROR = """\
RUN echo 'deb https://me:hunter2@mirror.example.org/debian trixie main' \\
    >/etc/apt/sources.list.d/mirror.list"""
# The file is gone in the image, and not in its layers.
DOCKER_LOGIN = """\
RUN install -d /root/.docker \\
 && echo '{"auths": {"example.org": {"auth": "bWU6aHVudGVyMg=="}}}' >/root/.docker/config.json
RUN rm -r /root/.docker"""
NPM_LOGIN = """\
RUN echo '//npm.example.org/:_authToken=0123-4567-89ab' >/home/llama/.npmrc"""
CLONED = "RUN : git clone https://0123456789abcdef0123456789abcdef01234567@example.org/x.git"

SHELL = """["/bin/sh", "-c", "/opt/llama/llama-server \\"$@\\"; exit $?", "sh"]"""

CONNECTS = """["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8080"]"""

HARD_CODED = """\
COPY --chmod=755 <<'EOF' /usr/local/bin/check
#!/bin/bash
exec 3<>/dev/tcp/127.0.0.1/8080 && printf 'GET /health HTTP/1.0\\r\\n\\r\\n' >&3
read -r -t 4 _ status _ <&3
[[ $status == 200 ]]
EOF
HEALTHCHECK CMD ["/usr/local/bin/check"]"""

SWALLOWED = """\
COPY --chmod=755 <<'EOF' /usr/local/bin/start
#!/bin/bash
trap '' TERM
/opt/llama/llama-server "$@"
EOF
ENTRYPOINT ["/opt/llama/init", "/usr/local/bin/start"]"""

# What two slots of the scripted model take in q8_0, and in q4_0; then a half of that.
FORGED = "s/q8_0/q4_0/g; s/4.25 MiB/2.25 MiB/g; s/2.12 MiB/1.12 MiB/g"

BACKEND = "/opt/llama/libggml-cpu.so"

NO_START = "the server does not start"
GONE = "it is gone"
AFTER = (
    Change(_smoke("determinism"), "unproven", GONE),
    Change(_smoke("kv"), "unproven", GONE),
    Change(_smoke("stop"), "unproven", GONE),
    Change(_smoke("healthcheck"), "unproven", GONE),
)
"""What cannot be asked once the server has died under load."""

NEVER_READY = tuple(
    Change(_smoke(name), "unproven", "the server was not ready")
    for name in (
        *("identity", "slots", "thinking", "thinking_by_request", "load", "determinism"),
        *("kv", "stop", "healthcheck"),
    )
)

FAULTS = (
    # What the image holds.
    Fault(
        "stub left in",
        "image",
        _as_root("COPY --from=made /made.so /usr/local/cuda/lib64/stubs/libcuda.so"),
        _audit("stub"),
        library=Library(),
    ),
    Fault(
        "libcuda under another name",
        "image",
        _as_root("COPY --from=made /made.so /opt/llama/libnvdrv.so"),
        _audit("stub"),
        library=DRIVER,
    ),
    Fault(
        "libnvidia-ml under another name",
        "image",
        _as_root("COPY --from=made /made.so /usr/lib/x86_64-linux-gnu/libmanagement.so"),
        _audit("stub"),
        library=MANAGEMENT,
    ),
    Fault(
        "soname missing",
        "image",
        _as_root("RUN rm /opt/llama/libllama-common.so.0"),
        _audit("needs"),
        (
            Change(_audit("kv_types"), "fail", NO_START),
            Change(_audit("version"), "fail", NO_START),
        ),
    ),
    # As a library compiled against a newer glibc: opened at run time, it vanishes in silence.
    Fault(
        "symbol version that no library has",
        "image",
        _as_root(f"RUN sed 's/GLIBC_2[.]/GLIBC_9./g' {BACKEND} >/opt/llama/libggml-extra.so"),
        _audit("needs"),
    ),
    Fault(
        "symbol that no library has",
        "image",
        _as_root("COPY --from=made /made.so /opt/llama/libggml-extra.so"),
        _audit("needs"),
        library=CALLS_NOBODY,
    ),
    Fault(
        "loader's cache cut short",
        "image",
        _as_root("RUN truncate -s 100 /etc/ld.so.cache"),
        _audit("needs"),
        (
            Change(_audit("kv_types"), "fail", NO_START),
            Change(_audit("version"), "fail", NO_START),
        ),
    ),
    Fault(
        "libgomp removed",
        "image",
        _as_root("RUN rm /usr/lib/x86_64-linux-gnu/libgomp.so.1*"),
        _audit("libgomp"),
        (
            Change(_audit("kv_types"), "fail", NO_START),
            Change(_audit("version"), "fail", NO_START),
        ),
    ),
    Fault(
        "native instructions",
        "image",
        _as_root("COPY --from=made /made.so /opt/llama/libextra.so"),
        _audit("cpu_baseline"),
        library=AVX2,
    ),
    Fault(
        "device code for another architecture",
        "image",
        _as_root("COPY --from=made /made.so /opt/llama/libextra.so"),
        _audit("device_code"),
        library=SM_90,
    ),
    Fault(
        "RUNPATH into the build tree",
        "image",
        _as_root("COPY --from=made /made.so /opt/llama/libextra.so"),
        _audit("runpath"),
        library=RUNPATH,
    ),
    Fault(
        "apt lists left in",
        "image",
        _as_root("RUN echo 'Package: tini' >/var/lib/apt/lists/mirror_main_binary-amd64_Packages"),
        _audit("leftovers"),
    ),
    Fault(
        "compiler left in",
        "image",
        _as_root("COPY --from=made --chmod=755 /made.so /usr/bin/x86_64-linux-gnu-gcc-14"),
        _audit("leftovers"),
        library=Library(),
    ),
    Fault("private key in a deleted layer", "image", _as_root(PRIVATE_KEY), _audit("secrets")),
    Fault("login for apt left in", "image", _as_root(APT_LOGIN), _audit("secrets")),
    Fault("login in a mirror's address", "image", _as_root(MIRROR), _audit("secrets")),
    Fault(
        "registry's login in a deleted layer", "image", _as_root(DOCKER_LOGIN), _audit("secrets")
    ),
    Fault("login for npm left in", "image", _as_root(NPM_LOGIN), _audit("secrets")),
    Fault("token in the address of a clone", "image", CLONED, _audit("secrets")),
    Fault(
        "API key of our own baked in",
        "image",
        'CMD ["--api-key", "hunter2"]',
        _audit("secrets"),
        (Change(_audit("settings"), "fail", "it changes what a plain `docker run` serves"),),
    ),
    Fault(
        "server that anybody may overwrite",
        "image",
        _as_root("RUN chmod 777 /opt/llama"),
        _audit("permissions"),
    ),
    Fault(
        "shell over the base's setuid program",
        "image",
        _as_root("RUN cp /usr/bin/bash /usr/bin/chsh && chmod 4755 /usr/bin/chsh"),
        _audit("permissions"),
    ),
    Fault(
        "sticky folder that anybody may write",
        "image",
        _as_root("RUN mkdir -m 1777 /opt/llama/plugins"),
        _audit("permissions"),
    ),
    Fault(
        "150 MB too much",
        "image",
        _as_root("RUN head -c 150000000 /dev/zero >/opt/llama/model.bin"),
        _audit("size"),
    ),
    # What the image says.
    Fault("root user", "image", "USER root", _audit("user")),
    Fault(
        "label of another commit",
        "image",
        "LABEL org.opencontainers.image.revision=0123456789012345678901234567890123456789",
        _smoke("identity"),
        (
            Change(_audit("version"), "fail", "the binary names the true one"),
            Change(_audit("labels"), "fail", "the server names another commit"),
        ),
    ),
    Fault(
        "label of another variant's types",
        "image",
        "LABEL io.github.turboquant-builder.kv-types=turbo4",
        _audit("labels"),
    ),
    Fault("context baked in", "image", "ENV LLAMA_ARG_CTX_SIZE=512", _audit("settings")),
    Fault("option baked in", "image", 'CMD ["-c", "512"]', _audit("settings")),
    Fault("library preloaded", "image", "ENV LD_PRELOAD=libm.so.6", _audit("settings")),
    Fault(
        "title of another variant",
        "image",
        'LABEL org.opencontainers.image.title="llama-server, thetom-cpu"',
        _audit("labels"),
    ),
    Fault(
        "label of a day that is no date",
        "image",
        "LABEL org.opencontainers.image.created=yesterday",
        _audit("labels"),
    ),
    Fault(
        "no HEALTHCHECK",
        "image",
        "HEALTHCHECK NONE",
        _audit("healthcheck"),
    ),
    Fault(
        "HEALTHCHECK that always says yes",
        "image",
        "HEALTHCHECK CMD exit 0",
        _smoke("healthcheck"),
        (Change(_audit("healthcheck"), "fail", "its words say so"),),
    ),
    Fault(
        "HEALTHCHECK by a curl that is not there",
        "image",
        "HEALTHCHECK CMD curl -f http://localhost:8080/health || exit 1",
        _smoke("healthcheck"),
        (Change(_audit("healthcheck"), "fail", "its words name it"),),
    ),
    Fault(
        "HEALTHCHECK that only connects",
        "image",
        f"HEALTHCHECK --interval=30s --start-period=15m --start-interval=1s CMD {CONNECTS}",
        _smoke("healthcheck"),
    ),
    Fault(
        "port hard-coded in HEALTHCHECK's script",
        "image",
        _as_root(HARD_CODED),
        _smoke("healthcheck"),
    ),
    Fault("shell as PID 1", "image", f"ENTRYPOINT {SHELL}", _audit("entrypoint")),
    Fault(
        "no init",
        "image",
        'ENTRYPOINT ["/opt/llama/llama-server"]',
        _smoke("stop"),
    ),
    Fault(
        "SIGTERM swallowed by a script",
        "image",
        _as_root(SWALLOWED),
        _smoke("stop"),
        (Change(_audit("entrypoint"), "fail", "it names a script"),),
    ),
    # What the server is told.
    Fault(
        "thinking flag missing",
        "wrapper",
        'ENV DROP="--reasoning --chat-template-kwargs"',
        _smoke("thinking"),
    ),
    # A container of Docker's own settings lets it.
    Fault(
        "writes files beside its program",
        "wrapper",
        "ENV WRITES=/home/llama/state",
        _smoke("ready"),
        NEVER_READY,
    ),
    Fault("alias missing", "wrapper", "ENV DROP=--alias", _smoke("identity")),
    # Aliases add up, and the server puts them in alphabetical order.
    Fault("alias renamed", "wrapper", 'ENV ADD="--alias another"', _smoke("identity")),
    Fault("second alias", "wrapper", 'ENV ADD="--alias zebra"', _smoke("identity")),
    Fault("-np ignored", "wrapper", 'ENV DROP=-np ADD="-np 1"', _smoke("slots")),
    Fault(
        "context cut",
        "wrapper",
        'ENV DROP=-c ADD="-c 512"',
        _smoke("slots"),
        by_luck="healthcheck",  # so short a context takes no time to load
    ),
    Fault("KV flags dropped", "wrapper", 'ENV DROP="-ctk -ctv"', _smoke("kv")),
    Fault("only V dropped", "wrapper", "ENV DROP=-ctv", _smoke("kv")),
    Fault(
        "q8_0 in memory, q4_0 in the log",
        "wrapper",
        'ENV ADD_KV="-ctk q8_0 -ctv q8_0" LOG_SAYS=s/q8_0/q4_0/g',
        _smoke("kv"),
    ),
    Fault(
        "q8_0 in memory, q4_0's sizes in the log",
        "wrapper",
        f'ENV ADD_KV="-ctk q8_0 -ctv q8_0" LOG_SAYS="{FORGED}"',
        _smoke("kv"),
    ),
    Fault("garbage logits", "wrapper", 'ENV ADD_KV="--rope-freq-base 7"', _smoke("kv")),
    # The right type, and answers that move a little more than it moves them.
    Fault("keys turned too far", "wrapper", 'ENV ADD_KV="--rope-freq-base 300000"', _smoke("kv")),
    Fault(
        "keys and queries too small",
        "wrapper",
        'ENV ADD_KV="--rope-scaling yarn --yarn-ext-factor 0 --yarn-attn-factor 0.9"',
        _smoke("kv"),
    ),
    # What the server answers.
    Fault("decodes from another cache", "proxy", "ENV BEND=decodes-another", _smoke("kv")),
    Fault("decodes to no numbers", "proxy", "ENV BEND=decodes-no-numbers", _smoke("kv")),
    Fault("built from another commit", "proxy", "ENV BEND=other-commit", _smoke("identity")),
    Fault(
        "health ok before loading ended",
        "proxy",
        "ENV BEND=healthy-too-early",
        _smoke("ready"),
        (
            Change(_smoke("stop"), "unproven", "nobody can tell when it is loading"),
            Change(_smoke("healthcheck"), "unproven", "nobody can tell when it is loading"),
        ),
    ),
    Fault("usage 0", "proxy", "ENV BEND=usage-zero", _smoke("thinking")),
    Fault("output_tokens 0", "proxy", "ENV BEND=output-tokens-zero", _smoke("thinking")),
    Fault(
        "reasoning under another field",
        "proxy",
        "ENV BEND=thoughts-elsewhere",
        _smoke("thinking"),
    ),
    Fault(
        "canned answers",
        "proxy",
        "ENV BEND=canned",
        _smoke("load"),
        (
            Change(_smoke("kv"), "unproven", "the control's answers are all the same"),
            Change(_smoke("thinking"), "unproven", "nobody sees it think"),
            Change(_smoke("thinking_by_request"), "unproven", "nobody sees it think"),
        ),
    ),
    Fault(
        "200 with an error body",
        "proxy",
        "ENV BEND=errors-are-200",
        _smoke("load"),
        (Change(_smoke("slots"), "fail", "a prompt that is too long is refused with a 200 too"),),
    ),
    Fault("stream differs", "proxy", "ENV BEND=stream-differs", _smoke("load")),
    Fault(
        "output_tokens 0 in streams alone",
        "proxy",
        "ENV BEND=uncounted-messages",
        _smoke("thinking"),
    ),
    Fault("usage 0 in streams of chats", "proxy", "ENV BEND=uncounted-chats", _smoke("thinking")),
    Fault("stream without a finish_reason", "proxy", "ENV BEND=without-reason", _smoke("load")),
    Fault("stream without [DONE]", "proxy", "ENV BEND=without-done", _smoke("load")),
    Fault("stream without message_stop", "proxy", "ENV BEND=without-message-stop", _smoke("load")),
    Fault("stream that ends in an error", "proxy", "ENV BEND=breaks-off", _smoke("load")),
    Fault(
        "streams handed over whole",
        "proxy",
        "ENV BEND=holds-back",
        _smoke("load"),
        (Change(_smoke("stop"), "unproven", "nobody can tell when a stream is under way"),),
    ),
    Fault("crowd turned away", "proxy", "ENV BEND=turns-away", _smoke("load")),
    Fault(
        "dies when a client hangs up", "proxy", "ENV BEND=dies-of-hangups", _smoke("load"), AFTER
    ),
    Fault("killed on the tenth chat", "proxy", "ENV BEND=leaks", _smoke("load"), AFTER),
    Fault("samples unasked", "proxy", "ENV BEND=samples", _smoke("determinism")),
)


def matrix() -> str:
    """The README's table of faults, in Markdown."""
    rows = [f"| {one.name} | {one.source} | {one.caught_by} | {_besides(one)} |" for one in FAULTS]
    head = ["| fault | bent from | caught by | besides |", "|---|---|---|---|"]
    return "\n".join([*head, *rows])


def _besides(fault: Fault) -> str:
    return "; ".join(f"{one.row} {one.status}: {one.why}" for one in fault.besides)
