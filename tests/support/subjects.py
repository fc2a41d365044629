"""Images as the rules see them, made up: a good one, and changes to it."""

import dataclasses

from builder.audit.rules.subject import Pinned, Subject
from builder.image.elf import Elf
from builder.image.files import Config, Printed
from builder.image.tree import File, Layer, merge
from builder.model.pins import Pins
from builder.pins import load as pins

MACHINE = "EM_X86_64/64"
VARIANT = "mainline-cpu"
RECIPE = "a" * 64

# Copied from `docker run turboquant:mainline-cpu --help` and `--version`; the types' second line is
# where spiritbuun's has it.
HELP = """\
-ctk,  --cache-type-k TYPE              KV cache data type for K
                                        allowed values: f32, f16, bf16, q8_0, q4_0, q4_1, iq4_nl,
                                        q5_0, q5_1
                                        (default: f16)
                                        (env: LLAMA_ARG_CACHE_TYPE_K)
-ctv,  --cache-type-v TYPE              KV cache data type for V
                                        allowed values: f32, f16, bf16, q8_0, q4_0, q4_1, iq4_nl,
                                        q5_0, q5_1
                                        (default: f16)
                                        (env: LLAMA_ARG_CACHE_TYPE_V)
-ctkd, --cache-type-k-draft TYPE        KV cache data type for K for the draft model
                                        allowed values: f32
                                        (default: f16)
"""
VERSION = """\
version: 0.5.0-dev (build 0, commit 0c1e57098)
built with GNU 14.2.0 for Linux x86_64
"""
# The same of spiritbuun's fork.
FORK_VERSION = "version: 9326 (1c4788192)\nbuilt with GNU 14.2.0 for Linux x86_64\n"

LABELS = {
    "org.opencontainers.image.title": f"llama-server, {VARIANT}",
    "org.opencontainers.image.revision": "0c1e57098",
    "org.opencontainers.image.source": "https://github.com/ggml-org/llama.cpp.git",
    "org.opencontainers.image.version": "b0",
    "org.opencontainers.image.created": "",
    "org.opencontainers.image.base.name": "debian:trixie-slim",
    "org.opencontainers.image.base.digest": f"sha256:{'b' * 64}",
    "io.github.turboquant-builder.variant": VARIANT,
    "io.github.turboquant-builder.kv-types": "",
    "io.github.turboquant-builder.base-origin": "hub",
    "io.github.turboquant-builder.commit-claimed": "true",
    "io.github.turboquant-builder.dockerfile-sha256": RECIPE,
}

SERVER = File(
    "/opt/llama/llama-server",
    "file",
    0o755,
    size=1_000_000,
    elf=Elf(
        MACHINE,
        needed=("libggml-cpu.so",),
        search=("$ORIGIN",),
        interpreter="/lib64/ld-linux-x86-64.so.2",
        extensions={"SSE2": "movdqa"},
        units=(),
    ),
)
CPU = File(
    "/opt/llama/libggml-cpu.so",
    "file",
    elf=Elf(MACHINE, needed=("libgomp.so.1",), extensions={"SSE4_1": "pmulld"}, units=()),
)
GOMP = File("/usr/lib/x86_64-linux-gnu/libgomp.so.1", "file", elf=Elf(MACHINE))
HEALTHCHECK = File("/usr/local/bin/healthcheck", "file", 0o755, script=True)

BASE = Layer(
    (
        File("/lib64", "link", target="usr/lib64"),
        File("/usr/lib64/ld-linux-x86-64.so.2", "file", 0o755, elf=Elf(MACHINE)),
        File("/tmp", "folder", 0o1777),
        File("/dev/null", "device", 0o666),
        File("/usr/bin/su", "file", 0o4755),
        File("/bin", "link", target="usr/bin"),
        File("/usr/bin/bash", "file", 0o755, elf=Elf(MACHINE)),
        File("/usr/bin/tini", "file", 0o755, elf=Elf(MACHINE)),
        File("/etc/passwd", "file", text=b"root:x:0:0::/root:\nllama:x:10001:10001::/:\n"),
    )
)

CONFIG = Config(
    user="10001:10001",
    entrypoint=("/usr/bin/tini", "--", "/opt/llama/llama-server"),
    environment=("PATH=/usr/local/bin:/usr/bin:/bin", "LLAMA_ARG_HOST=0.0.0.0"),
    labels=LABELS,
    healthcheck=("CMD", "/usr/local/bin/healthcheck"),
    history=("COPY /out/server/ /opt/llama/ # buildkit",),
)


def pinned(everything: Pins, name: str = VARIANT, **changes: object) -> Pinned:
    """What the real pins say of a variant, with changes to the variant."""
    chosen = dataclasses.replace(pins.variant(everything, name)[1], **changes)  # type: ignore[arg-type]
    fork, base = everything.forks[chosen.fork], everything.bases[chosen.base]
    commit = everything.sources[chosen.source].upstream if chosen.source else fork.commit
    return Pinned(name, chosen, fork, base, commit, {RECIPE: base})


def good(everything: Pins) -> Subject:
    """An image of mainline-cpu that no rule finds fault with."""
    layers = (BASE, Layer((SERVER, CPU, GOMP, HEALTHCHECK)))
    return Subject(
        config=CONFIG,
        layers=layers,
        tree=merge(layers),
        help=Printed(HELP, 0),
        version=Printed(VERSION, 0),
        pinned=pinned(everything),
    )


def with_files(subject: Subject, *files: File, removed: tuple[str, ...] = ()) -> Subject:
    """The image with one more layer."""
    layers = (*subject.layers, Layer(files, frozenset(removed)))
    return dataclasses.replace(subject, layers=layers, tree=merge(layers))


def with_config(subject: Subject, **changes: object) -> Subject:
    """The image with another configuration."""
    config = dataclasses.replace(subject.config, **changes)  # type: ignore[arg-type]
    return dataclasses.replace(subject, config=config)


def with_elf(subject: Subject, file: File, **changes: object) -> Subject:
    """The image with another ELF file in this one's place."""
    assert file.elf is not None
    found = dataclasses.replace(file.elf, **changes)  # type: ignore[arg-type]
    return with_files(subject, dataclasses.replace(file, elf=found))
