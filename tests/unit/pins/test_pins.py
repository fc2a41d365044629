"""pins.toml: what loads, and how each impossible entry is named."""

import pytest

from builder.common.errors import PinsError, UsageError
from builder.model.pins import Kv
from builder.pins import load as pins
from tests.conftest import ROOT

TEXT = (ROOT / "pins.toml").read_text(encoding="utf-8")

VARIANTS = [
    "aaryan-kapoor-cpu",
    "madreag-cpu",
    "madreag-cuda12-sm86",
    "mainline-cpu",
    "mainline-cuda12-sm86",
    "spiritbuun-cpu",
    "spiritbuun-cuda12-multi",
    "spiritbuun-cuda12-sm120",
    "spiritbuun-cuda12-sm86",
    "spiritbuun-cuda12-sm86-slim",
    "spiritbuun-cuda12-sm89",
    "thetom-cpu",
    "thetom-cuda12-sm86",
    "turbo-tan-cuda12-sm86",
]


def edited(section: str, old: str, new: str) -> str:
    """The text of pins.toml with `old` replaced by `new`, once, from the heading `section` on."""
    start = TEXT.index(section)
    assert old in TEXT[start:]
    return TEXT[:start] + TEXT[start:].replace(old, new, 1)


def problems(text: str) -> list[str]:
    with pytest.raises(PinsError) as caught:
        pins.parse(text)
    return [caught.value.what, *caught.value.why.splitlines()]


BAD = [
    # Heading, what stands below it, what is written instead: the place and words of the answer.
    (
        "[policy]",
        "max_days =",
        "max_dayz =",
        "policy.max_dayz: unknown key; did you mean 'max_days'?",
    ),
    ("[policy]", "max_days = 14", "", "policy.max_days: is missing"),
    ("[policy]", "max_days = 14", "max_days = 0", "policy.max_days: must be at least 1"),
    (
        "[policy]",
        "max_days = 14",
        'max_days = "soon"',
        "policy.max_days: Input should be a valid integer",
    ),
    (
        "[policy]",
        "max_days = 14",
        'max_days = "14"',
        "policy.max_days: Input should be a valid integer, not '14'",
    ),
    (
        "[policy]",
        "max_commits = 50",
        "max_commits = 50.0",
        "policy.max_commits: Input should be a valid integer, not 50.0",
    ),
    *(
        (
            "[policy]",
            'alert_paths = ["src/llama-kv-cache*", "ggml/src/*turbo-quant*"]',
            f'alert_paths = ["src/*", "{path}"]',
            f"policy.alert_paths: '{path}' is no path in a fork's tree",
        )
        for path in ("", "/src/x", "../x", "src/../x", "./src", "src/..")
    ),
    *(
        (
            "[policy.release]",
            'require = ["contract", "audit"]',
            f'require = []\nrepository = "{name}"',
            f"policy.release.repository: '{name}' is not host/name, without a tag",
        )
        for name in ("llama", "me/llama", "ghcr.io/me/llama:x", "https://ghcr.io/me/x", "ghcr.io/")
    ),
    (
        "[policy.nightly]",
        '"mainline-cpu"',
        '"mainline-cpus"',
        "policy.nightly.variants: unknown variant 'mainline-cpus'; did you mean 'mainline-cpu'?",
    ),
    (
        "[policy.nightly]",
        "bisect_after = 3",
        "bisect_after = 0",
        "policy.nightly.bisect_after: must be at least 1",
    ),
    (
        "[forks.mainline]",
        "build_number = 8993",
        'build_number = "8993"',
        "forks.mainline.build_number: Input should be a valid integer, not '8993'",
    ),
    (
        "[policy]",
        '"spiritbuun-',
        '"spiritbun-',
        "policy.default_variant: "
        "unknown variant 'spiritbun-cuda12-sm86'; did you mean 'spiritbuun-cuda12-sm86'?",
    ),
    (
        "[policy.release]",
        '"audit"',
        '"audits"',
        "policy.release.require.1: Input should be 'contract', 'audit' or 'kv', not 'audits'",
    ),
    # Forks.
    (
        "[forks.spiritbuun]",
        "commit =",
        "comit =",
        "forks.spiritbuun.comit: unknown key; did you mean 'commit'?",
    ),
    (
        "[forks.spiritbuun]",
        "1c478819233f28b90be647040cac1ca7f4ee1c9c",
        "1c4788192",
        "forks.spiritbuun.commit: '1c4788192' is not 40 hex digits; `git rev-parse` gives them",
    ),
    (
        "[forks.spiritbuun]",
        "1c478819233f28b90be647040cac1ca7f4ee1c9c",
        "master",
        "forks.spiritbuun.commit: 'master' is not 40 hex digits",
    ),
    (
        "[forks.turbo-tan]",
        "unpinned =",
        "branch =",
        "forks.turbo-tan.commit: is missing: give 40 hex digits, or say why not with `unpinned`",
    ),
    (
        "[forks.mainline]",
        "commit =",
        'unpinned = "no reason"\ncommit =',
        "forks.mainline.unpinned: a fork with a commit is pinned: remove one of the two",
    ),
    (
        "[forks.mainline]",
        'url = "https://github.com/ggml-org/llama.cpp"',
        "",
        "forks.mainline.url: is missing",
    ),
    (
        "[forks.mainline]",
        "https://",
        "git://",
        "forks.mainline.url: "
        "'git://github.com/ggml-org/llama.cpp' is not an https://, ssh:// or file:// "
        "address",
    ),
    (
        "[forks.mainline]",
        "https://github.com",
        "https://$USER.github.com",
        "forks.mainline.url: 'https://$USER.github.com/ggml-org/llama.cpp' is not",
    ),
    *(
        ("[forks.mainline]", "https://github.com", address, "forks.mainline.url: has a login in it")
        for address in (
            "https://me:ghp_secret@github.com",
            "https://ghp_secret@github.com",
            "https://$USER@github.com",
            "https://me:p/w@github.com",
            "ssh://git:secret@github.com",
        )
    ),
    (
        "[forks.mainline]",
        '"master"',
        '"--upload-pack=id"',
        "forks.mainline.branch: '--upload-pack=id' is no branch's name",
    ),
    ("[forks.mainline]", "date = 2026-04-30T21:19:10Z", "", "forks.mainline.date: is missing"),
    (
        "[forks.mainline]",
        "21:19:10Z",
        "21:19:10",
        "forks.mainline.date: has no time zone: end it with Z for UTC",
    ),
    (
        "[forks.mainline]",
        "2026-04-30T21:19:10Z",
        '"yesterday"',
        "forks.mainline.date: Input should be a valid datetime",
    ),
    (
        "[forks.mainline]",
        '"backend-dl"',
        '"static"',
        "forks.mainline.linkage: Input should be 'backend-dl' or 'static-backends', not 'static'",
    ),
    (
        "[forks.spiritbuun]",
        '= "codebooks"',
        '= "../codebooks"',
        "forks.spiritbuun.codebooks: '../codebooks' is not a relative folder",
    ),
    (
        "[forks.spiritbuun]",
        "block_bytes = 66",
        "block_byte = 66",
        "forks.spiritbuun.kv_types.turbo4.block_byte: unknown key; did you mean 'block_bytes'?",
    ),
    (
        "[forks.spiritbuun]",
        "block_bytes = 66, ",
        "",
        "forks.spiritbuun.kv_types.turbo4: give block_bytes and block_values, or neither",
    ),
    (
        "[forks.spiritbuun.broken]",
        "bd755711ecd3df752fe006b6dfb472b9f96baa60 =",
        "bd755711 =",
        "forks.spiritbuun.broken.bd755711: is not 40 hex digits; `git rev-parse` gives them",
    ),
    (
        "[forks.spiritbuun.broken]",
        '"does not compile with CUDA: fattn.cu has a case twice; fixed by a60bc4c40"',
        '""',
        "forks.spiritbuun.broken.6e07c8617d66501d20061df0c75dd13578467b8d: say what is known",
    ),
    (
        "[forks.spiritbuun]",
        "turbo2_tcq =",
        '"turbo2\\" evil" =',
        'forks.spiritbuun.kv_types.turbo2" evil: '
        "a KV type is lower-case letters, digits, '_' and '.'",
    ),
    (
        "[forks.spiritbuun]",
        "predicted = { kl = [7.6e-3, 3.1e-2]",
        "predicted = { kl = [3.1e-2, 7.6e-3]",
        "forks.spiritbuun.kv_types.turbo4.predicted.kl: [0.031, 0.0076] is no band",
    ),
    (
        "[forks.spiritbuun]",
        "block_values = 128, predicted",
        "block_values = 128, band = { kl = [2e-2, 1e-2], top1 = 0.5 }, predicted",
        "forks.spiritbuun.kv_types.turbo4.band.kl: [0.02, 0.01] is no band: the lower limit",
    ),
    (
        "[forks.thetom.kv_rules]",
        "queries = 6",
        "queries = 0",
        "forks.thetom.kv_rules.shared_k.queries: must be at least 1",
    ),
    (
        "[forks.thetom.kv_rules]",
        '"turbo2", layers',
        '"turbo5", layers',
        "forks.thetom.kv_rules.edge_v.kv_type: unknown KV type of the fork 'turbo5'",
    ),
    (
        "[forks.thetom.kv_rules]",
        '"TURBO_AUTO_ASYMMETRIC"',
        '"TURBO AUTO"',
        "forks.thetom.kv_rules.shared_k.off: 'TURBO AUTO' is no environment variable",
    ),
    (
        "[forks.spiritbuun.kv_rules]",
        "widest_head",
        "widest_heads",
        "forks.spiritbuun.kv_rules.widest_heads: unknown key; did you mean 'widest_head'?",
    ),
    (
        "[kv_bands]",
        "[3.5e-5, 3e-4]",
        "[-3.5e-5, 3e-4]",
        "kv_bands.q8_0.kl: [-3.5e-05, 0.0003] is no",
    ),
    (
        "[kv_bands]",
        "[3.5e-5, 3e-4]",
        "[3e-4, 3e-4]",
        "kv_bands.q8_0.kl: [0.0003, 0.0003] is no band",
    ),
    (
        "[kv_bands]",
        "[3.5e-5, 3e-4]",
        "[nan, 3.6e-4]",
        "kv_bands.q8_0.kl: [nan, 0.00036] is no band",
    ),
    (
        "[kv_bands]",
        "[3.5e-5, 3e-4]",
        "[3.5e-5, inf]",
        "kv_bands.q8_0.kl: [3.5e-05, inf] is no band",
    ),
    ("[kv_bands]", "top1 = 0.9 ", "top1 = 1.1 ", "kv_bands.q8_0.top1: 1.1 is no share: 0 to 1"),
    ("[kv_bands]", "top1 = 0.9 ", "top1 = -0.1 ", "kv_bands.q8_0.top1: -0.1 is no share"),
    (
        "[kv_bands]",
        "q8_0 =",
        "q8_1 =",
        "kv_bands.q8_1: unknown KV type 'q8_1'; did you mean 'q8_0'?",
    ),
    ("[profiles.haiku]", '"local-haiku"', '"a,b"', "profiles.haiku.alias: 'a,b' is no name"),
    ("[profiles.haiku]", '"local-haiku"', '""', "profiles.haiku.alias: '' is no name"),
    ("[profiles.haiku]", "parallel = 2", "parallel = 0", "profiles.haiku.parallel: must be"),
    ("[profiles.haiku]", "= 32768", "= 8", "profiles.haiku.slot_tokens: must be at least 256"),
    ("[profiles.haiku]", "alias", "name", "profiles.haiku.name: unknown key"),
    (
        "[profiles.haiku]",
        "thinking = false",
        'thinking = false\nkv = { k = "q8_0", v = "turbo5" }',
        "profiles.haiku.kv.v: unknown KV type 'turbo5'; did you mean 'turbo",
    ),
    (
        "[profiles.haiku]",
        "thinking = false",
        'thinking = false\nkv = "q8_0:turbo5"',
        "profiles.haiku.kv.v: unknown KV type 'turbo5'; did you mean 'turbo",
    ),
    (
        "[profiles.haiku]",
        "thinking = false",
        "thinking = false\nport = 70000",
        "profiles.haiku.port: 70000 is no port",
    ),
    (
        "[profiles.haiku]",
        "thinking = false",
        'thinking = false\ngpu = "some"',
        "profiles.haiku.gpu: Input should be 'holds', 'shares' or 'none', not 'some'",
    ),
    (
        "[profiles.haiku]",
        "thinking = false",
        "thinking = false\nslot_prompt_similarity = 2.0",
        "profiles.haiku.slot_prompt_similarity: 2.0 is no share",
    ),
    (
        "[profiles.haiku]",
        "thinking = false",
        "thinking = false\ncache_ram = -2",
        "profiles.haiku.cache_ram: MiB, 0 for none or -1 for no limit",
    ),
    (
        "[profiles.haiku]",
        "thinking = false",
        "thinking = false\ncache_ram = 0\ncache_idle_slots = true",
        "profiles.haiku.cache_idle_slots: idle slots are kept in cache_ram",
    ),
    (
        "[profiles.haiku]",
        "thinking = false",
        "thinking = false\nembeddings = true",
        "profiles.haiku.thinking: an embedder does not think: leave it out",
    ),
    (
        "[profiles.haiku]",
        "thinking = false",
        'thinking = false\ndraft = "../small.gguf"',
        "profiles.haiku.draft: '../small.gguf' is no file in the model's folder",
    ),
    (
        "[profiles.haiku]",
        "thinking = false",
        'thinking = false\nflags = ["-c", "4096"]',
        "profiles.haiku.flags: -c is said by the key slot_tokens",
    ),
    (
        "[profiles.haiku]",
        "thinking = false",
        'thinking = false\nflags = ["--api-key", "x"]',
        "profiles.haiku.flags: --api-key is given where the server is started: --api-key-file",
    ),
    (
        "[profiles.haiku]",
        "thinking = false",
        'thinking = false\nflags = ["-ncmoe=4"]',
        "profiles.haiku.flags: llama-server takes a flag and its value as two words",
    ),
    (
        "[profiles.haiku]",
        "thinking = false",
        'thinking = false\nflags = ["4096"]',
        "profiles.haiku.flags: '4096' is a value without a flag before it",
    ),
    (
        "[profiles.haiku]",
        "thinking = false",
        'thinking = false\nflags = [""]',
        "profiles.haiku.flags: '' is a value without",
    ),
    (
        "[profiles.haiku]",
        "thinking = false",
        'thinking = false\nenv = { LLAMA_ARG_PORT = "1" }',
        "profiles.haiku.env.LLAMA_ARG_PORT: say it with a key of the profile",
    ),
    (
        "[profiles.haiku]",
        "thinking = false",
        'thinking = false\nenv = { HF_TOKEN = "x" }',
        "profiles.haiku.env.HF_TOKEN: a secret is in no file",
    ),
    (
        "[profiles.haiku]",
        "thinking = false",
        'thinking = false\nenv = { "A B" = "x" }',
        "profiles.haiku.env.A B: is no variable",
    ),
    (
        "[profiles.haiku]",
        "thinking = false",
        "",
        "profiles.haiku.thinking: is missing: true or false; left to the prompt",
    ),
    (
        "[profiles.embed]",
        "port = 8081",
        "",
        "profiles.embed.port: 8080 is that of profiles.haiku, which it runs beside",
    ),
    (
        "[profiles.coder]",
        "[profiles.coder]",
        "[profiles.opus]",
        "profiles.opus: is the vendor's own tier",
    ),
    (
        "[forks.mainline]",
        "[forks.mainline]",
        '[forks."main.line"]',
        "forks.main.line: a name is lower-case letters, digits, '_' and '-'",
    ),
    (
        "[forks.mainline]",
        "linkage =",
        'options = { "my option" = true }\nlinkage =',
        "forks.mainline.options.my option: is no CMake option",
    ),
    # Sources.
    ("[sources.", "832db06", "832DB06", "sources.llama-cpp-python.sha256: "),
    (
        "[sources.",
        '"0c1e57098"',
        '"0c1e"',
        "sources.llama-cpp-python.upstream: '0c1e' is not 7 to 40 hex digits",
    ),
    (
        "[sources.",
        '"vendor/',
        '"../vendor/',
        "sources.llama-cpp-python.subfolder: '../vendor/llama.cpp' is not a relative folder",
    ),
    (
        "[sources.",
        '"llama-cpp-python"',
        '"--index-url"',
        "sources.llama-cpp-python.package: '--index-url' is no project name",
    ),
    (
        "[sources.",
        '"0.3.36"',
        '"latest"',
        "sources.llama-cpp-python.version: 'latest' is no version",
    ),
    # Bases.
    (
        "[bases.nvidia-cuda126]",
        "@sha256:d49bb8a4ff97fb5fe477947a3f02aa8c0a53eae77e11f00ec28618a0bcaa2ad1",
        "",
        "bases.nvidia-cuda126.devel: "
        "'docker.io/nvidia/cuda:12.6.3-devel-ubuntu22.04' is not name:tag@sha256:digest; "
        "a tag alone can move",
    ),
    (
        "[bases.nvidia-cuda126]",
        "runtime =",
        "# runtime =",
        "bases.nvidia-cuda126.runtime: is missing: give an image by digest, or [bootstrap]",
    ),
    (
        "[bases.nvidia-cuda126]",
        'version = "11"',
        'version = "14"',
        "bases.nvidia-cuda126.compiler.version: gcc 14 is too new for nvcc 12.6.3; gcc 13 or older",
    ),
    (
        "[bases.nvidia-cuda126]",
        'driver = "525.60.13"',
        'driver = "470.82.01"',
        "bases.nvidia-cuda126.cuda.driver: "
        "driver 470.82.01 cannot run code of CUDA 12.6.3; 525.60.13 or newer",
    ),
    (
        "[bases.nvidia-cuda126]",
        'runtime_glibc = "2.41"',
        'runtime_glibc = "2.31"',
        "bases.nvidia-cuda126.runtime_glibc: 2.31 is older than devel's 2.35",
    ),
    (
        "[bases.nvidia-cuda126]",
        'version = "12.6.3"',
        'version = "12.7.0"',
        "bases.nvidia-cuda126.cuda.version: CUDA 12.7.0 is not in the table; one of 12.0,",
    ),
    (
        "[bases.nvidia-cuda126]",
        'version = "12.6.3"',
        'version = "twelve"',
        "bases.nvidia-cuda126.cuda.version: 'twelve' is no version",
    ),
    (
        "[bases.nvidia-cuda126]",
        '"/usr/local/cuda',
        '"/usr/local;id/cuda',
        "bases.nvidia-cuda126.cuda.stubs: "
        "'/usr/local;id/cuda/lib64/stubs' is not an absolute folder",
    ),
    (
        "[bases.nvidia-cuda126]",
        '"cuda-nvprune-12-6"',
        '"cuda nvprune"',
        "bases.nvidia-cuda126.cuda.nvprune: 'cuda nvprune' is no Debian package name",
    ),
    (
        "[bases.nvidia-cuda126]",
        'cxx = "g++"',
        'cxx = "g++ -O3"',
        "bases.nvidia-cuda126.compiler.cxx: 'g++ -O3' is no command",
    ),
    (
        "[bases.debian-trixie]",
        '"libssl-dev"',
        '"libssl-dev; id"',
        "bases.debian-trixie.devel_packages: 'libssl-dev; id' is no Debian package name",
    ),
    (
        "[bases.debian-trixie]",
        '"libgomp1"',
        '"$(id)"',
        "bases.debian-trixie.runtime_packages: '$(id)' is no Debian package name",
    ),
    (
        "[bases.debian-trixie.bootstrap]",
        '"trixie"',
        '"--setup-hook=id"',
        "bases.debian-trixie.bootstrap.devel.suite: "
        "'--setup-hook=id' is no Debian suite or component",
    ),
    (
        "[bases.debian-trixie.bootstrap]",
        '"ca-certificates"',
        '"ca certificates"',
        "bases.debian-trixie.bootstrap.devel.packages: 'ca certificates' is no Debian package name",
    ),
    (
        "[bases.debian-trixie.bootstrap]",
        'runtime = { suite = "trixie"',
        'runtime = { suite = "Trixie"',
        "bases.debian-trixie.bootstrap.runtime.suite: 'Trixie' is no Debian suite or component",
    ),
    (
        "[bases.nvidia-cuda128]",
        'driver = "550.54.14"',
        'driver = "525.60.13"',
        "bases.nvidia-cuda128.cuda.driver: "
        "driver 525.60.13 cannot run code of CUDA 12.8.1; 550.54.14 or newer",
    ),
    (
        "[bases.pypi-cuda130.bootstrap.devel]",
        'sha256 = "56fe',
        'sha256 = "zzzz',
        "bases.pypi-cuda130.bootstrap.devel.wheels.0.sha256: 'zzzz",
    ),
    (
        "[bases.pypi-cuda130.bootstrap.devel]",
        '"nvidia-nvvm"',
        '"nvidia-nvvm --pre"',
        "bases.pypi-cuda130.bootstrap.devel.wheels.1.package: "
        "'nvidia-nvvm --pre' is no project name",
    ),
    (
        "[bases.pypi-cuda130.bootstrap.devel]",
        'version = "13.0.88"',
        'version = "../13"',
        "bases.pypi-cuda130.bootstrap.devel.wheels.0.version: '../13' is no version",
    ),
    (
        "[bases.pypi-cuda130.bootstrap.devel]",
        "sha256 =",
        "sha265 =",
        "bases.pypi-cuda130.bootstrap.devel.wheels.0.sha265: unknown key; did you mean 'sha256'?",
    ),
    (
        "[bases.pypi-cuda130.bootstrap.devel]",
        '"g++"',
        '"make"',
        "bases.pypi-cuda130.bootstrap.devel.packages: wheels need g++ or gcc beside them",
    ),
    # Variants.
    (
        "[variants.spiritbuun-cpu]",
        '"spiritbuun"',
        '"spiritbun"',
        "variants.spiritbuun-cpu.fork: unknown fork 'spiritbun'; did you mean 'spiritbuun'?",
    ),
    (
        "[variants.spiritbuun-cpu]",
        '"debian-trixie"',
        '"debian-trixy"',
        "variants.spiritbuun-cpu.base: unknown base 'debian-trixy'; did you mean 'debian-trixie'?",
    ),
    (
        "[variants.mainline-cpu]",
        '"llama-cpp-python"',
        '"llama-cpp"',
        "variants.mainline-cpu.source: "
        "unknown source 'llama-cpp'; did you mean 'llama-cpp-python'?",
    ),
    (
        "[variants.spiritbuun-cpu]",
        '"all"',
        '"x86-64-v9"',
        "variants.spiritbuun-cpu.cpu: "
        "Input should be 'all', 'x86-64-v2' or 'x86-64-v3', not 'x86-64-v9'",
    ),
    (
        "[variants.thetom-cuda12-sm86]",
        '"x86-64-v3"',
        '"all"',
        "variants.thetom-cuda12-sm86.cpu: "
        "'all' needs linkage backend-dl; give x86-64-v2 or x86-64-v3",
    ),
    (
        "[variants.spiritbuun-cpu]",
        '"turbo4"',
        '"turbo5"',
        "variants.spiritbuun-cpu.smoke_kv: "
        "unknown KV type of fork spiritbuun 'turbo5'; did you mean 'turbo4'?",
    ),
    (
        "[variants.spiritbuun-cpu]",
        '"turbo4"',
        '"tq3_0"',
        "variants.spiritbuun-cpu.smoke_kv: unknown KV type of fork spiritbuun 'tq3_0'",
    ),
    (
        "[variants.spiritbuun-cuda12-sm120]",
        '"nvidia-cuda128"',
        '"nvidia-cuda126"',
        "variants.spiritbuun-cuda12-sm120.architectures: "
        "CUDA 12.6.3 does not know architecture 120; a base with CUDA 12.8 or newer",
    ),
    (
        "[variants.spiritbuun-cuda12-sm120]",
        '"120"',
        '"12"',
        "variants.spiritbuun-cuda12-sm120.architectures: "
        "unknown CUDA architecture '12'; one of 50,",
    ),
    (
        "[variants.spiritbuun-cuda12-sm120]",
        '["120"]',
        "[]",
        "variants.spiritbuun-cuda12-sm120.architectures: "
        'a base with CUDA needs them, for example ["86"]',
    ),
    (
        "[variants.spiritbuun-cuda12-sm120]",
        '["120"]',
        "[120]",
        "variants.spiritbuun-cuda12-sm120.architectures.0: Input should be a valid string, not 120",
    ),
    (
        "[variants.spiritbuun-cpu]",
        "cpu =",
        'architectures = ["86"]\ncpu =',
        "variants.spiritbuun-cpu.architectures: CUDA architectures need a base with [cuda]",
    ),
    (
        "[variants.spiritbuun-cpu]",
        "cpu =",
        'cublas = "pruned"\ncpu =',
        "variants.spiritbuun-cpu.cublas: 'pruned' needs a base with [cuda]",
    ),
    (
        "[variants.spiritbuun-cuda12-sm86-slim]",
        '"pruned"',
        '"static"',
        "variants.spiritbuun-cuda12-sm86-slim.cublas: "
        "Input should be 'shared' or 'pruned', not 'static'",
    ),
    (
        "[variants.spiritbuun-cpu]",
        "cpu =",
        'options = { X = "$(id)" }\ncpu =',
        "variants.spiritbuun-cpu.options.X: '$(id)' has one of \" \\ $ `",
    ),
    (
        "[variants.spiritbuun-cpu]",
        "cpu =",
        'options = { X = "a\\nRUN id" }\ncpu =',
        "variants.spiritbuun-cpu.options.X: 'a\\nRUN id' has one of",
    ),
    (
        "[variants.spiritbuun-cpu]",
        "cpu =",
        'options = { "X=1 -DY" = true }\ncpu =',
        "variants.spiritbuun-cpu.options.X=1 -DY: is no CMake option",
    ),
    (
        "[variants.spiritbuun-cpu]",
        "[variants.spiritbuun-cpu]",
        '[variants."my variant"]',
        "variants.my variant: a name is lower-case letters, digits, '_' and '-'",
    ),
    (
        "[variants.spiritbuun-cpu]",
        "[variants.spiritbuun-cpu]",
        "[variants.spiritbuun.cpu]",
        "variants.spiritbuun.fork: is missing",
    ),
]


@pytest.mark.parametrize(
    ("section", "old", "new", "answer"), BAD, ids=[row[3].split(": ", 2)[0] for row in BAD]
)
def test_a_bad_entry_is_named_by_its_place(section, old, new, answer):
    found = problems(edited(section, old, new))

    assert [p for p in found if p.startswith(f"pins.toml: {answer}")], found


def test_one_bad_entry_gives_one_problem():
    assert len(problems(edited("[variants.spiritbuun-cpu]", '"turbo4"', '"turbo5"'))) == 1


def test_all_problems_are_listed_at_once():
    text = edited("[forks.spiritbuun]", "1c478819233f28b90be647040cac1ca7f4ee1c9c", "1c47")
    text = text.replace('smoke_kv = "tq3_0"', 'smoke_kv = "tq3"')
    text = text.replace('"ccache", "cmake", "g++"', '"ccache", "cmake && id", "g++"', 1)

    assert [p.split(": ")[1] for p in problems(text)] == [
        "forks.spiritbuun.commit",
        "bases.debian-trixie.devel_packages",
        "variants.aaryan-kapoor-cpu.smoke_kv",
    ]


def test_all_unknown_keys_are_listed_at_once():
    text = TEXT.replace("max_commits", "max_comits").replace("smoke_kv", "smoke", 1)

    places = {p.split(": ")[1] for p in problems(text)}

    assert {"policy.max_comits", "variants.mainline-cpu.smoke"} <= places


def test_what_is_no_toml_is_named_by_line_and_column():
    assert problems("[policy]\nmax_days == 14\n") == [
        "pins.toml: is no TOML",
        "Invalid value (at line 2, column 11)",
    ]


def test_an_empty_file_lacks_its_tables():
    assert problems("") == [
        f"pins.toml: {table}: is missing" for table in ("policy", "forks", "bases", "variants")
    ]


def test_problems_carry_the_exit_code_of_usage():
    with pytest.raises(PinsError) as caught:
        pins.parse("")

    assert caught.value.exit_code == 2


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(PinsError, match=r"nowhere\.toml: cannot be read"):
        pins.load(tmp_path / "nowhere.toml")


def test_a_file_that_is_no_text_is_named(tmp_path):
    path = tmp_path / "pins.toml"
    path.write_bytes(b"\xff\xfe")

    with pytest.raises(PinsError, match=r"pins\.toml: cannot be read"):
        pins.load(path)


def test_pins_are_found_upwards(tmp_path):
    (tmp_path / "pins.toml").write_text(TEXT, encoding="utf-8")
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)

    assert pins.find(below) == tmp_path / "pins.toml"


def test_no_pins_upwards_is_none(tmp_path):
    assert pins.find(tmp_path) is None


def test_the_real_file_has_the_missions_variants(real_pins):
    assert sorted(real_pins.variants) == VARIANTS


def test_the_real_file_has_the_missions_forks(real_pins):
    assert sorted(real_pins.forks) == [
        "aaryan-kapoor",
        "madreag",
        "mainline",
        "spiritbuun",
        "thetom",
        "turbo-tan",
    ]


def test_no_variant_named_means_spiritbuun_on_sm86(real_pins):
    assert pins.variant(real_pins, None)[0] == "spiritbuun-cuda12-sm86"


def test_an_unknown_variant_is_a_usage_error_with_the_nearest_name(real_pins):
    with pytest.raises(UsageError) as caught:
        pins.variant(real_pins, "mainline-cpus")

    assert (caught.value.what, caught.value.hint) == (
        "unknown variant 'mainline-cpus'",
        "did you mean 'mainline-cpu'?",
    )


def test_an_unknown_base_is_a_usage_error_with_the_nearest_name(real_pins):
    with pytest.raises(UsageError) as caught:
        pins.with_base(real_pins, real_pins.variants["mainline-cuda12-sm86"], "debian-cuda125")

    assert (caught.value.what, caught.value.hint) == (
        "unknown base 'debian-cuda125'",
        "did you mean 'debian-cuda124'?",
    )


def test_a_base_that_cannot_compile_the_variant_is_a_usage_error(real_pins):
    with pytest.raises(UsageError, match=r"CUDA 12\.4\.131 does not know architecture 120"):
        pins.with_base(real_pins, real_pins.variants["spiritbuun-cuda12-sm120"], "debian-cuda124")


def test_a_base_without_cuda_is_refused_for_a_cuda_variant(real_pins):
    with pytest.raises(UsageError, match="CUDA architectures need a base"):
        pins.with_base(real_pins, real_pins.variants["spiritbuun-cuda12-sm86"], "debian-trixie")


def test_another_base_that_fits_is_taken(real_pins):
    chosen = real_pins.variants["spiritbuun-cuda12-sm86"]

    assert pins.with_base(real_pins, chosen, "debian-cuda124") == real_pins.bases["debian-cuda124"]


def test_mainline_is_pinned_where_spiritbuun_last_merged(real_pins):
    assert real_pins.forks["mainline"].commit == "a95a11e5b834057e684712963f90bbb730f4745c"


def test_mainline_cpu_needs_no_git_host(real_pins):
    assert real_pins.variants["mainline-cpu"].source == "llama-cpp-python"


def test_mainline_cpu_needs_no_image_hub(real_pins):
    assert real_pins.bases[real_pins.variants["mainline-cpu"].base].bootstrap is not None


@pytest.mark.parametrize("name", ["spiritbuun-cuda12-sm120", "spiritbuun-cuda12-multi"])
def test_sm120_compiles_on_cuda_12_8(real_pins, name):
    cuda = real_pins.bases[real_pins.variants[name].base].cuda

    assert cuda.version == "12.8.1"


@pytest.mark.parametrize("digits", [7, 9, 40])
def test_what_is_known_against_a_commit_is_found_by_its_first_digits(real_pins, digits):
    commit = "bd755711ecd3df752fe006b6dfb472b9f96baa60"[:digits]
    assert "fixed by e1cf4bf52" in pins.broken(real_pins.forks["spiritbuun"], commit)


def test_nothing_is_known_against_a_pin(real_pins):
    pinned = [fork for fork in real_pins.forks.values() if fork.commit]
    assert [fork.url for fork in pinned if pins.broken(fork, fork.commit)] == []


@pytest.mark.parametrize(
    ("written", "kv"),
    [
        ('kv = "q8_0"', Kv("q8_0", "q8_0")),
        ('kv = "q8_0:turbo4"', Kv("q8_0", "turbo4")),
        ('kv = { k = "q8_0", v = "q4_0" }', Kv("q8_0", "q4_0")),
    ],
)
def test_a_profile_names_kv_types_as_one_two_or_a_table(written: str, kv: Kv) -> None:
    text = TEXT.replace("[profiles.haiku]", f"[profiles.haiku]\n{written}")
    assert pins.parse(text).profiles["haiku"].kv == kv
