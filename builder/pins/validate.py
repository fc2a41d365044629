"""What a pins.toml can say that cannot be: each with its place and what to write instead."""

import math
import re
from collections.abc import Iterable, Iterator

from packaging.version import InvalidVersion, Version

from builder.common.redaction import redacted
from builder.common.suggest import suggestion
from builder.llama.flags import KEYS_FLAGS, OPTIONS_FLAGS
from builder.model.pins import (
    MAINLINE_KV_TYPES,
    OPUS,
    Band,
    Base,
    Bootstrap,
    Fork,
    Pins,
    Policy,
    Profile,
    Source,
    Variant,
    Wheel,
)
from builder.pins import cuda

_SHA1 = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHORT = re.compile(r"[0-9a-f]{7,40}")
_IMAGE = re.compile(r"[a-z0-9.:/_-]+(:[\w.-]+)?@sha256:[0-9a-f]{64}")
_REPOSITORY = re.compile(
    r"(localhost|\[[0-9a-f:.]+\]|[a-z0-9-]+(\.[a-z0-9-]+)+)(:\d+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+"
)
_GIT_URL = re.compile(r"(https://|ssh://|file:///|\w[\w.-]*@[\w.-]+:)[\w.:/@%+~-]+")
_BRANCH = re.compile(r"\w[\w./+-]*")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
_KV_TYPE = re.compile(r"[a-z0-9][a-z0-9_.]*")
_ALIAS = re.compile(r"[\w.:/-]+", re.ASCII)
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9.+-]+")
_SUITE = re.compile(r"[a-z][a-z0-9-]*")
_PROJECT = re.compile(r"[A-Za-z0-9][\w.-]*")
_COMMAND = re.compile(r"[\w/][\w/.+-]*")
_FOLDER = re.compile(r"[\w.-]+(/[\w.-]+)*")
_OPTION = re.compile(r"[A-Z][A-Z0-9_]*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SECRET = re.compile(r"(^|_)(API_?KEY|TOKEN|SECRET|PASSWORD)(_|$)", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_UNSAFE = re.compile(r'["\\$`\x00-\x1f]')

_LEAST_SLOT = 256
_MOST_PORT = 65535

Problem = tuple[str, str]
"""A place ("variants.x.fork") and what is wrong there."""


def is_repository(text: str) -> bool:
    """Whether this is `host/name`, without a tag."""
    return _REPOSITORY.fullmatch(text) is not None


def problems(pins: Pins) -> Iterator[Problem]:
    """Everything that is wrong with values whose types are right."""
    for kind in ("forks", "sources", "bases", "variants", "profiles"):
        for name in getattr(pins, kind):
            if not _NAME.fullmatch(name):
                yield f"{kind}.{name}", "a name is lower-case letters, digits, '_' and '-'"
    for name, fork in pins.forks.items():
        yield from _at(f"forks.{name}", _fork_problems(fork))
    for name, source in pins.sources.items():
        yield from _at(f"sources.{name}", _source_problems(source))
    for name, base in pins.bases.items():
        yield from _at(f"bases.{name}", _base_problems(base))
    for name, variant in pins.variants.items():
        yield from _at(f"variants.{name}", _variant_problems(pins, variant))
    for name, profile in pins.profiles.items():
        if name == OPUS:
            yield f"profiles.{name}", "is the vendor's own tier, which `builder env` leads back to"
        yield from _at(f"profiles.{name}", _profile_problems(pins, profile))
    yield from _at("kv_bands", _bands_problems(pins.kv_bands))
    if pins.policy.default_variant not in pins.variants:
        default = pins.policy.default_variant
        yield "policy.default_variant", _unknown("variant", default, pins.variants)
    for name in pins.policy.nightly.variants:
        if name not in pins.variants:
            yield "policy.nightly.variants", _unknown("variant", name, pins.variants)
    yield from _at("policy", _policy_problems(pins.policy))


def _policy_problems(policy: Policy) -> Iterator[Problem]:
    for key in ("max_days", "max_commits"):
        if getattr(policy, key) < 1:
            yield key, "must be at least 1"
    for path in policy.alert_paths:
        # Such a pattern meets no file, and nobody would notice.
        if not path or path.startswith("/") or not {"..", "."}.isdisjoint(path.split("/")):
            yield "alert_paths", f"{path!r} is no path in a fork's tree, such as 'src/llama-kv*'"
    if policy.nightly.bisect_after < 1:
        yield "nightly.bisect_after", "must be at least 1"
    repository = policy.release.repository
    if repository is not None and not is_repository(repository):
        yield (
            "release.repository",
            f"{repository!r} is not host/name, without a tag, such as 'ghcr.io/me/llama'",
        )


def _release_problems(release: Source | Wheel) -> Iterator[Problem]:
    if not _PROJECT.fullmatch(release.package):
        yield "package", f"{release.package!r} is no project name"
    if not _is_version(release.version):
        yield "version", f"{release.version!r} is no version"
    if not _SHA256.fullmatch(release.sha256):
        yield "sha256", f"{release.sha256!r} is not 64 hex digits"


def _source_problems(source: Source) -> Iterator[Problem]:
    yield from _release_problems(source)
    if not _SHORT.fullmatch(source.upstream):
        yield "upstream", f"{source.upstream!r} is not 7 to 40 hex digits"
    if not _FOLDER.fullmatch(source.subfolder) or ".." in source.subfolder:
        yield "subfolder", f"{source.subfolder!r} is not a relative folder"


def _at(place: str, problems: Iterator[Problem]) -> Iterator[Problem]:
    for key, what in problems:
        yield f"{place}.{key}", what


def _unknown(kind: str, name: str, known: Iterable[str]) -> str:
    return f"unknown {kind} {name!r}; {suggestion(name, known)}"


def _url_problems(url: str) -> Iterator[Problem]:
    if redacted(url) != url:
        yield (
            "url",
            (
                "has a login in it, which images and pull requests would show: leave it out, "
                "git has credential helpers for it (gitcredentials(7))"
            ),
        )
    elif not _GIT_URL.fullmatch(url):
        yield "url", f"{url!r} is not an https://, ssh:// or file:// address"


def _fork_problems(fork: Fork) -> Iterator[Problem]:
    yield from _pin_problems(fork)
    if fork.url is None and fork.unpinned is None:
        yield "url", "is missing"
    if fork.url is not None:
        yield from _url_problems(fork.url)
    if fork.branch is not None and not _BRANCH.fullmatch(fork.branch):
        yield "branch", f"{fork.branch!r} is no branch's name"
    folder = fork.codebooks
    if folder is not None and (".." in folder or not _FOLDER.fullmatch(folder)):
        yield "codebooks", f"{folder!r} is not a relative folder"
    for name, kv in fork.kv_types.items():
        if not _KV_TYPE.fullmatch(name):
            yield f"kv_types.{name}", "a KV type is lower-case letters, digits, '_' and '.'"
        if (kv.block_bytes is None) != (kv.block_values is None):
            yield f"kv_types.{name}", "give block_bytes and block_values, or neither"
        if kv.band is not None:
            yield from _at(f"kv_types.{name}.band", _band_problems(kv.band))
        if kv.predicted is not None:
            yield from _at(f"kv_types.{name}.predicted", _band_problems(kv.predicted))
    yield from _at("kv_rules", _rules_problems(fork))
    for commit, known in fork.broken.items():
        if not _SHA1.fullmatch(commit):
            yield f"broken.{commit}", "is not 40 hex digits; `git rev-parse` gives them"
        if not known.strip() or "\n" in known:
            yield f"broken.{commit}", "say what is known of it, in one line"
    yield from _option_problems(fork.options)


def _rules_problems(fork: Fork) -> Iterator[Problem]:
    rules = fork.kv_rules
    numbers = {key: getattr(rules, key) for key in ("pad_heads", "whole_heads", "widest_head")}
    off = {}
    if rules.shared_k:
        numbers["shared_k.queries"] = rules.shared_k.queries
        off["shared_k.off"] = rules.shared_k.off
    if rules.edge_v:
        numbers["edge_v.layers"] = rules.edge_v.layers
        numbers["edge_v.least_layers"] = rules.edge_v.least_layers
        off["edge_v.off"] = rules.edge_v.off
        if rules.edge_v.kv_type not in fork.kv_types:
            known = fork.kv_types
            yield "edge_v.kv_type", _unknown("KV type of the fork", rules.edge_v.kv_type, known)
    for key, number in numbers.items():
        if number is not None and number < 1:
            yield key, "must be at least 1; leave it out where the fork has no such rule"
    for key, variable in off.items():
        if variable is not None and not _VARIABLE.fullmatch(variable):
            yield key, f"{variable!r} is no environment variable"


def _bands_problems(bands: dict[str, Band]) -> Iterator[Problem]:
    for name, band in bands.items():
        if name not in MAINLINE_KV_TYPES:
            yield name, _unknown("KV type", name, MAINLINE_KV_TYPES)
        yield from _at(name, _band_problems(band))


def _band_problems(band: Band) -> Iterator[Problem]:
    low, high = band.kl
    # Written so that NaN, which TOML has, is refused too.
    if not 0 <= low < high < math.inf:
        yield "kl", f"{[low, high]} is no band: the lower limit from 0 on, then a higher one"
    if not 0 <= band.top1 <= 1:
        yield "top1", f"{band.top1} is no share: 0 to 1"


def _pin_problems(fork: Fork) -> Iterator[Problem]:
    if fork.commit is None and fork.unpinned is None:
        yield "commit", "is missing: give 40 hex digits, or say why not with `unpinned`"
    if fork.commit is not None and fork.unpinned is not None:
        yield "unpinned", "a fork with a commit is pinned: remove one of the two"
    if fork.commit is not None and not _SHA1.fullmatch(fork.commit):
        yield "commit", f"{fork.commit!r} is not 40 hex digits; `git rev-parse` gives them"
    if fork.commit is not None and fork.date is None:
        yield "date", "is missing: the commit's date, which becomes the image's `created`"
    if fork.build_number is not None and fork.build_number < 1:
        yield "build_number", "must be at least 1; leave it out when unknown"
    if fork.date is not None and fork.date.tzinfo is None:
        yield "date", "has no time zone: end it with Z for UTC"


def _option_problems(options: dict[str, bool | str]) -> Iterator[Problem]:
    for name, value in options.items():
        if not _OPTION.fullmatch(name):
            yield f"options.{name}", "is no CMake option: upper-case letters, digits and '_'"
        if isinstance(value, str) and _UNSAFE.search(value):
            yield f"options.{name}", f'{value!r} has one of " \\ $ ` or a control character'


def _base_problems(base: Base) -> Iterator[Problem]:
    for role, image in (("devel", base.devel), ("runtime", base.runtime)):
        if image is not None and not _IMAGE.fullmatch(image):
            yield role, f"{image!r} is not name:tag@sha256:digest; a tag alone can move"
        if image is None and base.bootstrap is None:
            yield role, "is missing: give an image by digest, or [bootstrap]"
    for key in ("devel_packages", "runtime_packages"):
        for package in getattr(base, key):
            if not _PACKAGE.fullmatch(package):
                yield key, f"{package!r} is no Debian package name"
    for language in ("c", "cxx"):
        command = getattr(base.compiler, language)
        if not _COMMAND.fullmatch(command):
            yield f"compiler.{language}", f"{command!r} is no command"
    if base.cuda is not None and not _FOLDER.fullmatch(base.cuda.stubs.removeprefix("/")):
        yield "cuda.stubs", f"{base.cuda.stubs!r} is not an absolute folder"
    if base.cuda is not None and not _PACKAGE.fullmatch(base.cuda.nvprune or "none"):
        yield "cuda.nvprune", f"{base.cuda.nvprune!r} is no Debian package name"
    if base.bootstrap is not None:
        yield from _at("bootstrap.devel", _bootstrap_problems(base.bootstrap.devel))
        yield from _at("bootstrap.runtime", _bootstrap_problems(base.bootstrap.runtime))
    bad = [(key, text) for key, text in _versions(base).items() if not _is_version(text)]
    yield from ((key, f"{text!r} is no version") for key, text in bad)
    if not bad:
        yield from _version_problems(base)


def _bootstrap_problems(recipe: Bootstrap) -> Iterator[Problem]:
    for key, words in (("suite", [recipe.suite]), ("components", recipe.components)):
        for word in words:
            if not _SUITE.fullmatch(word):
                yield key, f"{word!r} is no Debian suite or component"
    for path in recipe.exclude:
        if not path.startswith("/") or _UNSAFE.search(path):
            yield "exclude", f"{path!r} is not an absolute path"
    for package in recipe.packages:
        if not _PACKAGE.fullmatch(package):
            yield "packages", f"{package!r} is no Debian package name"
    for number, wheel in enumerate(recipe.wheels):
        yield from _at(f"wheels.{number}", _release_problems(wheel))
    if recipe.wheels and not {"gcc", "g++"} & set(recipe.packages):
        yield "packages", "wheels need g++ or gcc beside them: it makes the driver's stub"


def _versions(base: Base) -> dict[str, str]:
    versions = {
        "devel_glibc": base.devel_glibc,
        "runtime_glibc": base.runtime_glibc,
        "compiler.version": base.compiler.version,
    }
    if base.cuda is not None:
        versions |= {"cuda.version": base.cuda.version, "cuda.driver": base.cuda.driver}
    return versions


def _version_problems(base: Base) -> Iterator[Problem]:
    if Version(base.runtime_glibc) < Version(base.devel_glibc):
        yield (
            "runtime_glibc",
            f"{base.runtime_glibc} is older than devel's {base.devel_glibc}: what is compiled "
            "there does not start here; take a newer runtime image",
        )
    if base.cuda is not None:
        for conflict in (
            cuda.compiler_conflict(base.cuda.version, base.compiler.version),
            cuda.driver_conflict(base.cuda.version, base.cuda.driver),
        ):
            if conflict is not None:
                yield conflict.key, f"{conflict.problem}; {conflict.suggestion}"


def _is_version(text: str) -> bool:
    try:
        Version(text)
    except InvalidVersion:
        return False
    return True


def _variant_problems(pins: Pins, variant: Variant) -> Iterator[Problem]:
    if variant.source is not None and variant.source not in pins.sources:
        yield "source", _unknown("source", variant.source, pins.sources)
    if variant.max_mb is not None and variant.max_mb < 1:
        yield "max_mb", "must be at least 1; leave it out when nothing was measured"
    yield from _option_problems(variant.options)
    fork, base = pins.forks.get(variant.fork), pins.bases.get(variant.base)
    if fork is None:
        yield "fork", _unknown("fork", variant.fork, pins.forks)
    else:
        kv_types = [*fork.kv_types, *MAINLINE_KV_TYPES]
        if variant.smoke_kv not in kv_types:
            yield (
                "smoke_kv",
                _unknown(f"KV type of fork {variant.fork}", variant.smoke_kv, kv_types),
            )
        if variant.cpu == "all" and fork.linkage == "static-backends":
            yield "cpu", "'all' needs linkage backend-dl; give x86-64-v2 or x86-64-v3"
    if base is None:
        yield "base", _unknown("base", variant.base, pins.bases)
    else:
        yield from pair_problems(variant, base)


def _profile_problems(pins: Pins, profile: Profile) -> Iterator[Problem]:
    if not _ALIAS.fullmatch(profile.alias):
        # llama-server takes a comma for the end of one alias.
        yield "alias", f"{profile.alias!r} is no name: letters, digits, '.', '_', ':', '/' and '-'"
    if profile.parallel < 1:
        yield "parallel", "must be at least 1"
    if profile.slot_tokens < _LEAST_SLOT:
        yield "slot_tokens", f"must be at least {_LEAST_SLOT}"
    if not 1 <= profile.port <= _MOST_PORT:
        yield "port", f"{profile.port} is no port: 1 to {_MOST_PORT}"
    forks = pins.forks.values()
    known = [*MAINLINE_KV_TYPES, *(kv_type for fork in forks for kv_type in fork.kv_types)]
    for half, kv_type in () if profile.kv is None else (("k", profile.kv.k), ("v", profile.kv.v)):
        if kv_type not in known:
            yield f"kv.{half}", _unknown("KV type", kv_type, known)
    yield from _use_problems(profile)
    yield from _cache_problems(profile)
    yield from _words_problems(profile)
    yield from _neighbour_problems(pins, profile)


def _use_problems(profile: Profile) -> Iterator[Problem]:
    if profile.embeddings and profile.thinking is not None:
        yield "thinking", "an embedder does not think: leave it out"
    if profile.embeddings and profile.draft is not None:
        yield "draft", "an embedder drafts nothing: leave it out"
    if not profile.embeddings and profile.thinking is None:
        yield (
            "thinking",
            "is missing: true or false; left to the prompt, each request thinks as its text has it",
        )
    draft = profile.draft
    if draft is not None and (".." in draft or not _FOLDER.fullmatch(draft)):
        yield "draft", f"{draft!r} is no file in the model's folder"


def _cache_problems(profile: Profile) -> Iterator[Problem]:
    similarity = profile.slot_prompt_similarity
    # Written so that NaN, which TOML has, is refused too.
    if similarity is not None and not 0 <= similarity <= 1:
        yield "slot_prompt_similarity", f"{similarity} is no share: 0 to 1"
    if profile.cache_ram is not None and profile.cache_ram < -1:
        yield "cache_ram", "MiB, 0 for none or -1 for no limit"
    if profile.cache_idle_slots and profile.cache_ram == 0:
        yield "cache_idle_slots", "idle slots are kept in cache_ram, which is 0"


def _words_problems(profile: Profile) -> Iterator[Problem]:
    """Words for the server that say what another place says, or what no file may say."""
    keys = {flag: key for key, flags in KEYS_FLAGS.items() for flag in flags}
    options = {flag: option for option, flags in OPTIONS_FLAGS.items() for flag in flags}
    if profile.flags and not profile.flags[0].startswith("-"):
        yield "flags", f"{profile.flags[0]!r} is a value without a flag before it"
    for word in profile.flags:
        flag = word.partition("=")[0]
        if not word or _CONTROL.search(word):
            yield "flags", f"{word!r} is empty or has a control character"
        elif flag in keys:
            yield "flags", f"{flag} is said by the key {keys[flag]}"
        elif flag in options:
            yield "flags", f"{flag} is given where the server is started: {options[flag]}"
        elif flag.startswith("-") and flag != word:
            yield "flags", f"llama-server takes a flag and its value as two words, not {word!r}"
    for name, value in profile.env.items():
        if not _VARIABLE.fullmatch(name) or _CONTROL.search(value):
            yield f"env.{name}", "is no variable: NAME = 'value' without control characters"
        elif name.startswith("LLAMA_ARG_"):
            yield f"env.{name}", "say it with a key of the profile, or in flags"
        elif _SECRET.search(name):
            yield f"env.{name}", "a secret is in no file of launch flags; see --api-key-file"


def _neighbour_problems(pins: Pins, profile: Profile) -> Iterator[Problem]:
    if profile.gpu != "holds":
        for name, other in pins.profiles.items():
            if other is not profile and other.port == profile.port:
                yield "port", f"{profile.port} is that of profiles.{name}, which it runs beside"


def pair_problems(chosen: Variant, base: Base) -> Iterator[Problem]:
    """Why this base cannot compile this variant."""
    if base.cuda is None and chosen.architectures:
        yield "architectures", "CUDA architectures need a base with [cuda]"
    if base.cuda is None and chosen.cublas == "pruned":
        yield "cublas", "'pruned' needs a base with [cuda]"
    if base.cuda is not None and not chosen.architectures:
        yield "architectures", 'a base with CUDA needs them, for example ["86"]'
    if base.cuda is not None and _is_version(base.cuda.version):
        for architecture in chosen.architectures:
            conflict = cuda.architecture_conflict(base.cuda.version, architecture)
            if conflict is not None:
                yield conflict.key, f"{conflict.problem}; {conflict.suggestion}"
