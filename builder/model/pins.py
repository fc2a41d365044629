"""The values that the program is about: frozen, and free of effects."""

import datetime
from dataclasses import dataclass, field
from typing import Literal

MAINLINE_KV_TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")
"""The KV types of llama.cpp itself: `kv_cache_types` in common/arg.cpp."""

OPUS = "opus"
"""The tier that is not served here: everything is cleared for it, so that calls go to the vendor
with the user's own key."""

Linkage = Literal["backend-dl", "static-backends"]
Cpu = Literal["all", "x86-64-v2", "x86-64-v3"]
Requirement = Literal["contract", "audit", "kv"]
Cublas = Literal["shared", "pruned"]
Gpu = Literal["holds", "shares", "none"]

Logits = Literal["batch", "slots"]
"""Of how many tokens a server reserves memory for logits: a micro-batch's, or one of each slot.

llama.cpp did the first until some time in 2026 (`n_outputs_max` of llama_context_params).
"""


@dataclass(frozen=True, slots=True)
class Band:
    """How far a KV type may move the scripted model's answers from those with f16 KV.

    `kl` is the lowest and highest mean Kullback-Leibler divergence (nats a token) that was seen
    with room around it, `top1` the least share of prompts whose likeliest token stays.
    """

    kl: tuple[float, float]
    top1: float


@dataclass(frozen=True, slots=True)
class KvType:
    """A KV cache type: bytes a block, values a block (both absent: unknown), and its band.

    No band: nobody has measured it yet. `predicted` is what the published block format lets expect,
    computed with the scripted model: half to twice that divergence.
    """

    block_bytes: int | None = None
    block_values: int | None = None
    band: Band | None = None
    predicted: Band | None = None


@dataclass(frozen=True, slots=True)
class SharedK:
    """K of one of the fork's own types, asked for in K and V, is q8_0 in a model of shared heads.

    That is one with so many query heads or more for each KV head. `off` is the environment variable
    that turns the rule off with 0.
    """

    queries: int
    off: str | None = None


@dataclass(frozen=True, slots=True)
class EdgeV:
    """V of one type is q8_0 in so many first and last layers, in a model of so many or more.

    `off` is the environment variable that turns the rule off with 0.
    """

    kv_type: str
    layers: int
    least_layers: int
    off: str | None = None


@dataclass(frozen=True, slots=True)
class KvRules:
    """What a fork does with its own KV types unasked.

    `pad_heads`: heads are padded to a multiple of so many values, and `pads_first`: before the
    server looks whether blocks divide heads. `whole_heads`: K and V are q8_0 unless K's heads are a
    multiple of so many values. `widest_head`: wider heads are f16.
    """

    pad_heads: int | None = None
    pads_first: bool = False
    whole_heads: int | None = None
    widest_head: int | None = None
    shared_k: SharedK | None = None
    edge_v: EdgeV | None = None


@dataclass(frozen=True, slots=True)
class Fork:
    """A source repository, pinned to one commit or saying why it is not.

    `broken`: full SHA of a commit → what is known against it, one line.
    """

    linkage: Linkage
    url: str | None = None
    branch: str | None = None
    commit: str | None = None
    unpinned: str | None = None
    build_number: int | None = None
    date: datetime.datetime | None = None
    codebooks: str | None = None
    kv_types: dict[str, KvType] = field(default_factory=dict)
    kv_rules: KvRules = field(default_factory=KvRules)
    logits: Logits = "batch"
    options: dict[str, bool | str] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Source:
    """A source tree inside a PyPI sdist. `upstream` is the commit that the package claims."""

    package: str
    version: str
    sha256: str
    subfolder: str
    upstream: str
    logits: Logits = "batch"


@dataclass(frozen=True, slots=True)
class Wheel:
    """One of NVIDIA's wheels on the package index: a part of a CUDA toolkit."""

    package: str
    version: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """How mmdebstrap makes one image: from Debian packages, and a CUDA toolkit from wheels.

    `exclude` are paths left out of both.
    """

    suite: str
    packages: list[str]
    components: list[str] = field(default_factory=lambda: ["main"])
    exclude: list[str] = field(default_factory=list)
    wheels: list[Wheel] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Bootstraps:
    """How both images of a base are made where no image hub answers."""

    devel: Bootstrap
    runtime: Bootstrap


@dataclass(frozen=True, slots=True)
class Compiler:
    """The host compiler of a devel image: commands and major version."""

    c: str
    cxx: str
    version: str


@dataclass(frozen=True, slots=True)
class Cuda:
    """A CUDA toolkit: version, folder of the libcuda stub, lowest driver that runs its code.

    `nvprune` is the package of that tool, for a devel image that may come without it.
    """

    version: str
    stubs: str
    driver: str
    nvprune: str | None = None


@dataclass(frozen=True, slots=True)
class Base:
    """A pair of base images: where it compiles and what it runs on."""

    devel_glibc: str
    runtime_glibc: str
    devel_packages: list[str]
    runtime_packages: list[str]
    compiler: Compiler
    devel: str | None = None
    runtime: str | None = None
    bootstrap: Bootstraps | None = None
    cuda: Cuda | None = None


@dataclass(frozen=True, slots=True)
class Variant:
    """One buildable image: fork × base × CUDA architectures × CMake options.

    `max_mb` is its budget: megabytes (10⁶ bytes) that the unpacked image may take. `cublas` says
    how the image has cuBLAS: "shared", NVIDIA's libraries as they are, or "pruned", linked into
    libggml-cuda.so with no more device code than the architectures run.
    """

    fork: str
    base: str
    cpu: Cpu
    smoke_kv: str
    source: str | None = None
    architectures: list[str] = field(default_factory=list)
    options: dict[str, bool | str] = field(default_factory=dict)
    max_mb: int | None = None
    cublas: Cublas = "shared"


@dataclass(frozen=True, slots=True)
class Kv:
    """The types of the two halves of a KV cache."""

    k: str
    v: str

    def __str__(self) -> str:
        return self.k if self.k == self.v else f"{self.k}:{self.v}"


@dataclass(frozen=True, slots=True)
class Profile:
    """How a server is launched for one use. `slot_tokens` is the context of each slot.

    `thinking` None: not for an embedder, the only one that pins.toml may leave it out of; falsy is
    off. `kv` None: the variant's `smoke_kv`, and f16 for an embedder. `port` is the one of the
    machine. `gpu`: "holds" one at a time, "shares" it with the holder, "none" runs on the CPU.
    Where a slot or cache option is None the server's own default holds; `cache_ram` is in MiB, -1
    without a limit. `draft` is a GGUF in the model's folder. `flags` are words of a command line
    that no other key stands for, `env` is added to the image's own.
    """

    alias: str
    parallel: int
    slot_tokens: int
    thinking: bool | None = None
    kv: Kv | None = None
    port: int = 8080
    gpu: Gpu = "holds"
    kv_unified: bool | None = None
    slot_prompt_similarity: float | None = None
    cache_ram: int | None = None
    cache_idle_slots: bool | None = None
    embeddings: bool = False
    draft: str | None = None
    flags: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)

    @property
    def context(self) -> int:
        """Tokens of all slots together, which is what -c counts."""
        return self.parallel * self.slot_tokens

    @property
    def slot_limit(self) -> int:
        """Tokens that one request may have: with a unified cache, what the others leave of all."""
        return self.context if self.kv_unified else self.slot_tokens


@dataclass(frozen=True, slots=True)
class Release:
    """What an image must have passed before it gets a published name.

    `repository` is where: `host/name`, without a tag; None: nothing is published.
    """

    require: list[Requirement]
    repository: str | None = None


@dataclass(frozen=True, slots=True)
class Nightly:
    """What `builder nightly` builds when nobody names it; empty: what can be built at a branch.

    After `bisect_after` failed nights of a variant it looks for the first bad commit.
    """

    variants: list[str] = field(default_factory=list)
    bisect_after: int = 3


@dataclass(frozen=True, slots=True)
class Policy:
    """The default variant, and the limits for freshness (days, commits) and release.

    `alert_paths` are files of a fork (`*` spans folders) of which any change makes a pin stale.
    """

    default_variant: str
    max_days: int
    max_commits: int
    release: Release
    alert_paths: list[str] = field(default_factory=list)
    nightly: Nightly = field(default_factory=Nightly)


@dataclass(frozen=True, slots=True)
class Pins:
    """pins.toml as values. `kv_bands` are those of llama.cpp's own types; a fork's lie with it."""

    policy: Policy
    forks: dict[str, Fork]
    bases: dict[str, Base]
    variants: dict[str, Variant]
    sources: dict[str, Source] = field(default_factory=dict)
    profiles: dict[str, Profile] = field(default_factory=dict)
    kv_bands: dict[str, Band] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of a build: its name, seconds, and whether BuildKit had it already."""

    name: str
    duration_s: float
    cached: bool


@dataclass(frozen=True, slots=True)
class BaseImage:
    """A base image as used. `origin`: "hub" (by digest), "bootstrap" (mmdebstrap) or "set"."""

    role: Literal["devel", "runtime"]
    reference: str
    digest: str
    origin: Literal["hub", "bootstrap", "set"]


@dataclass(frozen=True, slots=True)
class CacheStats:
    """Compiler calls answered by ccache, those that compiled, and those it cannot take."""

    hits: int
    misses: int
    uncacheable: int = 0

    @property
    def hit_rate(self) -> float:
        """The share of the calls that ccache can take which it answered, 0 to 1."""
        return self.hits / max(1, self.hits + self.misses)


@dataclass(frozen=True, slots=True)
class Receipt:
    """The record of one build. Sizes in bytes, times in seconds; `created` is UTC, ISO 8601.

    `commit_claimed` says that nobody checked that the tree is that commit's.
    `ccache` is None when nothing was compiled; `ccache_dir` is the folder it was carried in,
    as it was given.
    `pace` has eleven times since the compile step began: of ninja's first step, and of each tenth
    of its steps; empty when nothing was compiled.
    `left_out` has the words of builder.parts for what the pins name and the commit does not have.
    """

    variant: str
    fork: str
    ref: str
    commit: str
    commit_claimed: bool
    source: str
    build_number: int
    image: str
    image_id: str
    size_bytes: int
    compressed_bytes: int
    bases: list[BaseImage]
    dockerfile_sha256: str
    created: str
    duration_s: float
    stages: list[Stage]
    ccache: CacheStats | None
    log: str
    ccache_dir: str | None = None
    pace: list[float] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    schema: int = 1


def git_address(url: str) -> str:
    """The URL as BuildKit's ADD wants it: an https address is a repository only with `.git`."""
    return url if url.endswith(".git") or not url.startswith("https://") else f"{url}.git"


def created(fork: Fork) -> str:
    """The pinned commit's date as RFC 3339 in UTC, or nothing for an unpinned fork."""
    import datetime

    return fork.date.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if fork.date else ""


def logits(pins: Pins, name: str | None) -> Logits:
    """For which tokens a server of this variant reserves logits; no variant: the larger of both."""
    known = pins.variants.get(name or "")
    if known is None:
        return "batch"
    return (pins.sources[known.source] if known.source else pins.forks[known.fork]).logits
