"""Each rule of the audit on a made-up image with one change."""

import dataclasses
import datetime

import pytest

from builder.audit import run as audit
from builder.audit.rules import health_words
from builder.audit.rules.contents import leftovers, permissions, stub
from builder.audit.rules.cpu_baseline import cpu_baseline
from builder.audit.rules.device_code import device_code
from builder.audit.rules.labels import labels
from builder.audit.rules.launch import entrypoint, healthcheck, settings, user
from builder.audit.rules.linking import cached, libgomp, needs, runpath
from builder.audit.rules.secret import in_file, kinds, secrets
from builder.audit.rules.server import kv_types, version
from builder.audit.rules.size import size
from builder.common.errors import PinsError
from builder.image import tree as image_tree
from builder.image.elf import Elf
from builder.image.fatbin import Code
from builder.image.files import Printed
from builder.image.tree import File, Layer
from builder.llama.printed import offered
from builder.model.pins import BaseImage, Receipt
from builder.pins import load as pins
from tests.conftest import ROOT
from tests.support import subjects
from tests.support.elf_bytes import bent
from tests.support.subjects import CPU, GOMP, MACHINE, SERVER, with_config, with_elf, with_files

REVISION = "org.opencontainers.image.revision"
CREATED = "org.opencontainers.image.created"
SOURCE = "org.opencontainers.image.source"
CLAIMED = "io.github.turboquant-builder.commit-claimed"
VARIANT = "io.github.turboquant-builder.variant"
RECIPE = "io.github.turboquant-builder.dockerfile-sha256"
LEFT_OUT = "io.github.turboquant-builder.left-out"
TYPES = "io.github.turboquant-builder.kv-types"
OLD_HOME = "https://example.org/before-it-moved.git"
OF_BUILDER = {CLAIMED, RECIPE, "io.github.turboquant-builder.base-origin"}

SM_86, SM_80, SM_75 = Code("sass", 86), Code("sass", 80), Code("sass", 75)
PTX_80, THEIR_SM_80 = Code("ptx", 80), Code("sass", 80, short_header=True)

PAIR = frozenset({"a", "b"})

# None of them opens anything: made here, of the shape that each service gives out.
LETTERS = "Ab3dE6gH1jK4mN7pQ0sT9vW2yZ5aC8eF1hJ4kL7n"
TOKENS = {
    "a Google API key": "AIza" + "a1B2c" * 7,
    "a Google login's token": "ya29.a0" + LETTERS,
    "a Google app's secret": "GOCSPX-" + "a1B2" * 7,
    "a GitHub app's token": "ghu_" + "a1B2" * 9,
    "a PyPI token": "pypi-AgE" + LETTERS * 2,
    "a Docker Hub token": "dckr_pat_" + LETTERS[:27],
    "an NVIDIA API key": "nvapi-" + (LETTERS * 2)[:64],
    "an npm token": "npm_" + "a1B2" * 9,
    "a GitLab token": "glpat-" + "a1B2" * 5,
    "a Slack token": "xoxb-" + "123456789012-" + "a1B2" * 6,
    "an AWS access key": "AKIA" + "Q3EGTS7HZ2WJ5NPX",
    "an AWS session's access key": "ASIA" + "Q3EGTS7HZ2WJ5NPX",
    "a GitHub token": "ghp_" + LETTERS[:36],
    "a GitHub workflow's token": "ghs_" + LETTERS[:36],
    "a GitHub fine-grained token": "github_pat_" + LETTERS[:22] + "_" + (LETTERS * 2)[:59],
    "a Hugging Face token": "hf_" + LETTERS[:34],
    "an API key": "sk-proj-" + LETTERS,
    "a Slack webhook": "https://hooks.slack.com/services/" + "T0123ABCD/B0123ABCD/" + LETTERS[:24],
    "a Stripe key": "sk_live_" + LETTERS[:24],
    "a Groq API key": "gsk_" + "a1B2" * 13,
    "a Replicate token": "r8_" + LETTERS[:37],
    "a SendGrid key": "SG." + LETTERS[:22] + "." + (LETTERS * 2)[:43],
    "a JSON web token": "eyJ" + "hbGciOiJIUzI1NiJ9.eyJ" + "zdWIiOiJtZSJ9" + "." + LETTERS,
    "an xAI API key": "xai-" + "a1B2" * 20,
    "a Perplexity API key": "pplx-" + "a1B2" * 12,
    "a Weights & Biases key": "wandb_v1_" + LETTERS,
    "a DigitalOcean token": "dop_v1_" + "0a1b2c3d" * 8,
    "a Databricks token": "dapi" + "0a1b2c3d" * 4,
    "a Vault token": "hvs." + LETTERS,
    "a private key": "-----BEGIN " + "PRIVATE KEY-----\n" + LETTERS * 4 + "\n",
}


LOGINS = [
    (
        "/etc/apt/sources.list",
        "deb https://me:hunter2@mirror.example.org/debian trixie main",
        "a password in an address",
    ),
    (
        "/etc/apt/sources.list.d/mirror.sources",
        "Types: deb\nURIs: https://0123abcd0123abcd@mirror.example.org/debian",
        "a token in an address",
    ),
    (
        "/etc/apt/apt.conf.d/80proxy",
        'Acquire::http::Proxy "http://me:hunter2@proxy.example.org:3128";',
        "a password in an address",
    ),
    (
        "/etc/apt/auth.conf",
        "machine mirror.example.org login me password hunter2",
        "a value of password",
    ),
    (
        "/etc/apt/auth.conf.d/mirror.conf",
        "machine mirror.example.org\nlogin me\npassword hunter2",
        "a value of password",
    ),
    (
        "/etc/pip.conf",
        "[global]\nindex-url = https://me:hunter2@pypi.example.org/simple",
        "a password in an address",
    ),
    ("/root/.npmrc", "//npm.example.org/:_authToken=0123-4567", "a value of _authToken"),
    ("/root/.yarnrc.yml", "npmAuthToken: '0123-4567'", "a value of npmAuthToken"),
    (
        "/root/.docker/config.json",
        '{"auths": {"example.org": {"auth": "bWU6aHVudGVyMg=="}}}',
        "a value of auth",
    ),
    ("/root/.kube/config", "users:\n- user:\n    token: 0123abcd", "a value of token"),
    (
        "/root/.gitconfig",
        "[http]\n extraheader = AUTHORIZATION: basic bWU6aHVudGVyMg==",
        "a login in a header",
    ),
    ("/root/.m2/settings.xml", "<password>hunter2</password>", "a value of password"),
    ("/srv/.env", "A=1\nOPENAI_API_KEY=hunter2", "a value of OPENAI_API_KEY"),
    ("/root/.bash_history", "cd /srv\nexport DB_PASSWORD=hunter2", "a value of DB_PASSWORD"),
]
NO_LOGINS = [
    ("/etc/apt/sources.list", "deb https://deb.example.org/debian trixie main"),
    ("/etc/apt/auth.conf", "# machine mirror.example.org login me password hunter2\n"),
    ("/etc/apt/apt.conf.d/80", 'Acquire::https::SslKey "/etc/ssl/client.key";'),
    ("/etc/pip.conf", "[global]\nindex-url = https://pypi.example.org/simple\n"),
    ("/root/.npmrc", "//npm.example.org/:_authToken=${NPM_TOKEN}\nalways-auth=true\n"),
    ("/root/.docker/config.json", '{"auths": {"example.org": {}}, "credsStore": "pass"}'),
    ("/root/.docker/config.json", "{}"),
    ("/root/.kube/config", "users:\n- user:\n    auth:\n      exec: helper\n"),
    ("/root/.gitconfig", "[user]\n name = me\n[credential]\n helper = store\n"),
    ("/srv/.env", "MAX_TOKENS=4096\nTOKENIZERS_PARALLELISM=false\n"),
    ("/etc/environment", "PATH=/usr/bin"),
]


@pytest.fixture
def good(real_pins):
    return subjects.good(real_pins)


@pytest.fixture
def cuda(good, real_pins):
    """A function that makes the image one of a CUDA variant whose units hold this code."""

    def make(*units, architectures=("86",), **changes):
        variant = subjects.pinned(
            real_pins, "mainline-cuda12-sm86", architectures=list(architectures), **changes
        )
        file = File("/opt/llama/libggml-cuda.so", "file", elf=Elf(MACHINE, units=units))
        return with_files(dataclasses.replace(good, pinned=variant), file)

    return make


@pytest.fixture
def slim(cuda, real_pins):
    """The same with cuBLAS linked in, compiled with the toolkit whose headers are known."""

    def make(*units):
        image = cuda(*units, cublas="pruned")
        base = real_pins.bases["debian-cuda124"]
        return dataclasses.replace(
            image, pinned=dataclasses.replace(image.pinned, recipes={subjects.RECIPE: base})
        )

    return make


def outcome(finding):
    return finding.status, finding.observed


@pytest.mark.parametrize("rule", audit.RULES, ids=lambda rule: rule.__name__)
def test_no_rule_finds_fault_with_a_good_image(good, rule):
    finding = rule(good)

    assert (finding.probe, finding.status) == (rule.__name__, "pass"), finding.observed


@pytest.mark.parametrize("rule", audit.RULES, ids=lambda rule: rule.__name__)
def test_no_rule_stumbles_over_an_image_without_files(good, rule):
    bare = dataclasses.replace(good, layers=(), tree=image_tree.merge([]))

    assert rule(bare).probe == rule.__name__


class TestNeeds:
    def test_a_library_that_is_gone_is_named_with_who_needs_it(self, good):
        assert outcome(needs(with_files(good, removed=(CPU.path,)))) == (
            "fail",
            "libggml-cpu.so is not there, needed by /opt/llama/llama-server",
        )

    def test_a_link_that_leads_nowhere_is_no_library(self, good):
        link = File(CPU.path, "link", target="libggml-cpu.so.0")
        assert needs(with_files(good, link)).status == "fail"

    def test_a_library_of_another_machine_is_no_library(self, good):
        assert needs(with_elf(good, CPU, machine="EM_386/32")).status == "fail"

    @pytest.mark.parametrize("name", ["libcuda.so.1", "libnvidia-ml.so.1"])
    def test_the_drivers_own_need_not_be_there(self, good, name):
        assert needs(with_elf(good, SERVER, needed=(name,))).status == "pass"

    def test_cublas_must_be_there(self, good):
        assert needs(with_elf(good, SERVER, needed=("libcublas.so.12",))).status == "fail"

    def test_a_loader_that_is_gone_is_a_need(self, good):
        assert "ld-linux" in needs(with_files(good, removed=("/usr/lib64",))).observed

    def test_a_folder_outside_the_loaders_own_is_not_looked_in(self, good):
        assert needs(with_elf(good, SERVER, search=())).status == "fail"

    def test_what_ldconfig_wrote_down_is_found(self, good):
        cache = File("/etc/ld.so.cache", "file", text=ld_so_cache({"libggml-cpu.so": CPU.path}))
        bare = with_elf(good, SERVER, search=())
        assert needs(with_files(bare, cache)).status == "pass"

    def test_what_ldconfig_wrote_down_and_is_gone_is_not_found(self, good):
        cache = File("/etc/ld.so.cache", "file", text=ld_so_cache({"libggml-cpu.so": "/gone.so"}))
        bare = with_elf(good, SERVER, search=())
        assert needs(with_files(bare, cache)).status == "fail"

    def test_ld_library_path_of_the_image_is_looked_in(self, good):
        bare = with_elf(good, SERVER, search=())
        assert needs(with_config(bare, environment=("LD_LIBRARY_PATH=/opt/llama",))).status == (
            "pass"
        )

    def test_openmp_is_left_to_its_own_rule(self, good):
        gone = with_files(good, removed=("/usr/lib/x86_64-linux-gnu/libgomp.so.1",))
        assert (needs(gone).status, libgomp(gone).status) == ("pass", "fail")

    def test_a_file_that_cannot_be_read_leaves_it_unproven(self, good):
        broken = with_elf(good, CPU, problem="Magic number does not match")
        assert needs(broken).status == "unproven"

    def test_a_file_that_cannot_be_read_hides_no_library_that_is_gone(self, good):
        broken = with_elf(good, GOMP, problem="Magic number does not match")
        assert needs(with_files(broken, removed=(CPU.path,))).status == "fail"

    def test_a_version_that_the_library_lacks_is_named_with_who_wants_it(self, good):
        older = with_elf(good, CPU, defines=frozenset({"CPU_1.0"}))
        newer = with_elf(older, SERVER, wants=(("libggml-cpu.so", "CPU_2.0"),))
        assert outcome(needs(newer)) == (
            "fail",
            "CPU_2.0 of libggml-cpu.so is not there, needed by /opt/llama/llama-server",
        )

    @pytest.mark.parametrize("defines", [{"CPU_1.0", "CPU_2.0"}, set()], ids=["it has", "has none"])
    def test_a_version_that_the_loader_does_not_miss(self, good, defines):
        library = with_elf(good, CPU, defines=frozenset(defines))
        assert needs(with_elf(library, SERVER, wants=(("libggml-cpu.so", "CPU_2.0"),))).status == (
            "pass"
        )

    def test_the_environments_folders_go_before_a_files_runpath(self, good):
        old = File("/old/libggml-cpu.so", "file", elf=Elf(MACHINE, defines=frozenset({"CPU_1.0"})))
        newer = with_elf(with_files(good, old), CPU, defines=frozenset({"CPU_2.0"}))
        wanting = with_elf(newer, SERVER, wants=(("libggml-cpu.so", "CPU_2.0"),))
        shadowed = with_config(wanting, environment=("LD_LIBRARY_PATH=/gone:/old",))
        assert (needs(wanting).status, needs(shadowed).status) == ("pass", "fail")
        assert needs(with_elf(shadowed, SERVER, first=True)).status == "pass"

    def test_the_library_that_the_loader_takes_first_must_have_it(self, good):
        path = "/usr/lib/x86_64-linux-gnu/libggml-cpu.so"
        newer = File(path, "file", elf=Elf(MACHINE, defines=frozenset({"CPU_2.0"})))
        older = with_elf(with_files(good, newer), CPU, defines=frozenset({"CPU_1.0"}))
        wants = (("libggml-cpu.so", "CPU_2.0"),)
        assert needs(with_elf(older, SERVER, wants=wants)).status == "fail"
        assert needs(with_elf(older, SERVER, wants=wants, search=())).status == "pass"

    def test_a_version_of_a_library_that_nothing_else_names_and_is_gone(self, good):
        assert needs(with_elf(good, SERVER, wants=(("libgone.so", "GONE_1"),))).status == "fail"

    def test_versions_of_the_drivers_libraries_are_the_drivers_affair(self, good):
        assert needs(with_elf(good, SERVER, wants=(("libcuda.so.1", "CUDA_99"),))).status == "pass"

    def test_musls_loader_looks_at_no_version(self, good):
        musl = File("/lib/ld-musl-x86_64.so.1", "file", 0o755, elf=Elf(MACHINE))
        older = with_elf(good, CPU, defines=frozenset({"CPU_1.0"}), needed=())
        wants = (("libggml-cpu.so", "CPU_2.0"),)
        bare = with_elf(older, SERVER, wants=wants, interpreter=musl.path)
        assert needs(with_files(bare, musl)).status == "fail"
        assert needs(with_files(bare, musl, removed=("/usr/lib64",))).status == "pass"

    def test_a_version_of_openmp_is_left_to_its_own_rule(self, good):
        older = with_elf(good, GOMP, defines=frozenset({"OMP_1.0"}))
        newer = with_elf(older, CPU, wants=(("libgomp.so.1", "OMP_5.0"),))
        assert (needs(newer).status, libgomp(newer).status) == ("pass", "fail")

    def test_a_symbol_that_no_library_gives_is_named_with_who_needs_it(self, good):
        backend = File("/opt/llama/libggml-x.so", "file", elf=Elf(MACHINE, imports=PAIR))
        assert outcome(needs(with_files(good, backend))) == (
            "fail",
            "no library has a, needed by /opt/llama/libggml-x.so, "
            "no library has b, needed by /opt/llama/libggml-x.so",
        )

    @pytest.mark.parametrize("giver", [SERVER, CPU, GOMP], ids=lambda file: file.path)
    def test_a_symbol_is_found_in_the_program_and_in_all_that_it_loads(self, good, giver):
        backend = File("/opt/llama/libggml-x.so", "file", elf=Elf(MACHINE, imports=PAIR))
        assert needs(with_files(with_elf(good, giver, exports=PAIR), backend)).status == "pass"

    def test_a_symbol_is_found_in_what_the_file_itself_loads(self, good):
        elf = Elf(MACHINE, imports=PAIR, needed=("liby.so",), search=("$ORIGIN",))
        backend = File("/opt/llama/libggml-x.so", "file", elf=elf)
        beside = File("/opt/llama/liby.so", "file", elf=Elf(MACHINE, exports=PAIR))
        assert needs(with_files(good, backend, beside)).status == "pass"
        stranger = dataclasses.replace(beside, path="/usr/lib/liby.so.1")
        assert (
            needs(
                with_files(
                    good, dataclasses.replace(backend, elf=Elf(MACHINE, imports=PAIR)), stranger
                )
            ).status
            == "fail"
        )

    def test_the_drivers_symbols_are_the_drivers_affair(self, good):
        names = frozenset({"cuInit", "nvmlInit_v2"})
        elf = Elf(MACHINE, imports=names, needed=("libcuda.so.1",))
        backend = File("/opt/llama/libggml-cuda.so", "file", elf=elf)
        assert needs(with_files(good, backend)).status == "pass"

    def test_what_others_compiled_may_be_opened_by_others(self, good):
        module = File("/usr/lib/perl/POSIX.so", "file", elf=Elf(MACHINE, imports=PAIR))
        assert needs(with_files(good, module)).status == "pass"

    def test_a_library_that_is_gone_or_broken_is_told_without_its_symbols(self, good):
        wanting = with_elf(good, SERVER, imports=PAIR)
        assert "no library has" not in needs(with_files(wanting, removed=(CPU.path,))).observed
        assert needs(with_elf(wanting, CPU, problem="bent")).status == "unproven"

    @pytest.mark.parametrize("cut", [0, 30, 48, 60, 90])
    def test_a_cache_that_is_cut_short_is_none(self, good, cut):
        text = ld_so_cache({"libggml-cpu.so": CPU.path, "libx.so": "/x.so"})[:cut]
        bare = with_elf(good, SERVER, search=())
        assert needs(with_files(bare, File("/etc/ld.so.cache", "file", text=text))).status == "fail"

    def test_what_the_cache_says_is_never_a_reason_to_stop(self):
        whole = ld_so_cache({"libggml-cpu.so": CPU.path, "libx.so": "/x.so"})
        for data in bent(whole, times=2000):
            assert isinstance(cached(data), dict)

    def test_a_path_with_a_backslash_is_a_path(self, good):
        odd = File("/srv/a\\d/x", "file", elf=dataclasses.replace(SERVER.elf, search=("$ORIGIN",)))
        beside = dataclasses.replace(CPU, path="/srv/a\\d/libggml-cpu.so")
        assert needs(with_files(good, odd, beside)).status == "pass"


def ld_so_cache(paths):
    """/etc/ld.so.cache as glibc's ldconfig writes it."""
    strings, entries = b"", b""
    start = 48 + 24 * len(paths)
    for name, path in paths.items():
        at = start + len(strings)
        strings += name.encode() + b"\0" + path.encode() + b"\0"
        numbers = (0x0303, at, at + len(name) + 1, 0)
        entries += b"".join(n.to_bytes(4, "little") for n in numbers) + bytes(8)
    head = b"glibc-ld.so.cache1.1" + len(paths).to_bytes(4, "little")
    return head + len(strings).to_bytes(4, "little") + bytes(20) + entries + strings


@pytest.mark.parametrize("folder", ["/src/build/bin", "", "build/bin", "$ORIGIN/../lib"])
def test_runpath_that_leads_out_of_the_image(good, folder):
    assert runpath(with_elf(good, SERVER, search=("$ORIGIN", folder))).status == "fail"


@pytest.mark.parametrize("folder", ["/opt/llama", "$ORIGIN", "${ORIGIN}/../llama"])
def test_runpath_inside_the_image(good, folder):
    assert runpath(with_elf(good, SERVER, search=(folder,))).status == "pass"


def test_no_openmp_is_needed_where_nothing_needs_it(good):
    assert outcome(libgomp(with_elf(good, CPU, needed=()))) == ("pass", "nothing needs it")


@pytest.mark.parametrize(
    "path",
    ["/usr/lib/libcuda.so", "/opt/llama/libcuda.so.1", "/usr/local/cuda/lib64/stubs/libcublas.so"],
)
def test_a_stub_left_in(good, path):
    assert outcome(stub(with_files(good, File(path, "file")))) == ("fail", path)


@pytest.mark.parametrize("soname", ["libcuda.so.1", "libnvidia-ml.so.1", "libcudadebugger.so.1"])
def test_a_stub_under_another_name_is_known_by_its_soname(good, soname):
    path = "/opt/llama/libnvdrv.so"
    found = stub(with_files(good, File(path, "file", elf=Elf(MACHINE, soname=soname))))
    assert outcome(found) == ("fail", f"{path} calls itself {soname}")


def test_a_soname_that_cannot_be_read_leaves_it_unproven(good):
    broken = with_elf(good, CPU, problem="Magic number does not match")
    assert stub(broken).status == "unproven"
    assert stub(with_files(broken, File("/x/libcuda.so", "file"))).status == "fail"


def test_the_cuda_runtime_is_no_stub(good):
    assert stub(with_files(good, File("/opt/llama/libcudart.so.12", "file"))).status == "pass"


@pytest.mark.parametrize(
    "path",
    [
        "/usr/bin/gcc",
        "/usr/bin/x86_64-linux-gnu-g++-14",
        "/usr/local/cuda/bin/nvcc",
        "/usr/libexec/gcc/x86_64-linux-gnu/14/cc1plus",
        "/var/lib/apt/lists/mirror_debian_dists_trixie_InRelease",
        "/var/cache/apt/archives/tini_0.19.deb",
        "/build/bin/llama-server",
        "/home/llama/x/CMakeCache.txt",
        "/srv/ggml-cuda.cu",
    ],
)
def test_a_leftover_of_the_build(good, path):
    assert path in leftovers(with_files(good, File(path, "file"))).observed


def test_a_folder_of_a_tools_name_is_no_tool(good):
    assert leftovers(with_files(good, File("/usr/bin/gcc", "folder"))).status == "pass"


@pytest.mark.parametrize(
    "path", ["/var/lib/apt/lists/lock", "/usr/bin/ld.so", "/usr/share/gcc/python", "/usr/src/notes"]
)
def test_what_a_base_image_has_is_no_leftover(good, path):
    assert leftovers(with_files(good, File(path, "file"))).status == "pass"


def test_a_leftover_that_a_later_layer_removed_is_none(good):
    compiler = with_files(good, File("/usr/bin/gcc", "file"))
    assert leftovers(with_files(compiler, removed=("/usr/bin/gcc",))).status == "pass"


@pytest.mark.parametrize(
    "file",
    [
        File("/models", "folder", 0o777),
        File("/scratch", "folder", 0o1777),
        File("/tmp", "folder", 0o1777, owner=(10001, 0)),
        File("/opt/llama/x", "file", 0o666),
        File("/usr/bin/setuid", "file", 0o4755),
        File("/usr/bin/setgid", "file", 0o2755),
        File("/usr/bin/capable", "file", 0o755, capability="01"),
        File("/usr/bin/su", "file", 0o4755, digest="bash"),
        File("/usr/bin/su", "file", 0o6755),
        File("/usr/bin/su", "file", 0o4755, owner=(0, 42)),
        File("/usr/bin/su", "file", 0o4755, capability="01"),
    ],
    ids=lambda file: f"{file.path} {file.mode:o} {file.owner} {file.capability}{file.digest}",
)
def test_a_path_that_gives_rights_away(good, file):
    assert file.path in permissions(with_files(good, file)).observed


@pytest.mark.parametrize(
    "file",
    [
        File("/tmp", "folder", 0o1777),
        File("/dev/zero", "device", 0o666),
        File("/usr/bin/link", "link", 0o777, target="su"),
        File("/usr/bin/su", "file", 0o4755),
        File("/var/mail", "folder", 0o2775),
    ],
    ids=["the base's own sticky one", "a device", "a link", "the base's own", "a folder's group"],
)
def test_a_path_that_gives_no_rights_away(good, file):
    assert permissions(with_files(good, file)).status == "pass"


def test_the_bases_own_folder_that_anybody_may_write_needs_its_sticky_bit(good):
    lowest, *others = good.layers
    opened = Layer((*lowest.files, File("/var/open", "folder", 0o777)))
    layers = (opened, *others)
    image = dataclasses.replace(good, layers=layers, tree=image_tree.merge(layers))
    assert outcome(permissions(image)) == ("fail", "anybody may write /var/open")


class TestSecrets:
    @pytest.mark.parametrize("kind", TOKENS)
    def test_a_token_in_bytes_is_known_by_its_kind(self, kind):
        assert kinds(b"\0KEY=" + TOKENS[kind].encode() + b"\0") == {kind}

    @pytest.mark.parametrize(
        "text",
        [
            "-----BEGIN PRIVATE KEY-----\0-----END PRIVATE KEY-----",
            "-----BEGIN PRIVATE KEY-----\n%s\n-----END PRIVATE KEY-----\n",
            "sk-a-model-of-version-2-without-capitals",
            "hf_model_name_that_is_long_but_a_name",
            "task-1A" + LETTERS,
            "sk-learn-is-not-a-key-but-words",
            "xAKIAQ3EGTS7HZ2WJ5NPX",
            "ghp_short",
            "r8_g8_b8_a8_format",
            "eyJhbGciOiJIUzI1NiJ9",
            "SG.a.b",
        ],
    )
    def test_what_only_looks_like_one_is_none(self, text):
        assert kinds(text.encode()) == frozenset()

    @pytest.mark.parametrize("kind", TOKENS)
    @pytest.mark.parametrize("gap", [1, 4050, 4096, 4133, 8191, 8192, 9000])
    def test_one_is_found_however_far_behind_something_like_it(self, kind, gap):
        token = TOKENS[kind].encode()
        assert kinds(b"hf_x r8_x " + token[:-1] + b"\0" * gap + token + b"\0") >= {kind}

    def test_one_in_a_file_is_found_and_not_told(self, good):
        file = File("/etc/app.conf", "file", secrets=frozenset({"a GitHub token"}))
        assert outcome(secrets(with_files(good, file))) == (
            "fail",
            "a GitHub token: /etc/app.conf (layer 3)",
        )

    @pytest.mark.parametrize(
        ("path", "status"),
        [("/usr/lib/x86_64-linux-gnu/libgnutls.so.30.40.3", "pass"), (SERVER.path, "fail")],
    )
    def test_a_key_that_a_library_of_the_base_tests_itself_with_is_none(self, good, path, status):
        held = frozenset({"a private key"})
        library = File(path, "file", elf=SERVER.elf, secrets=held)
        assert secrets(with_files(good, library)).status == status

    def test_a_token_in_such_a_library_is_found(self, good):
        held = frozenset({"a private key", "an npm token"})
        library = File("/usr/lib/libx.so", "file", elf=SERVER.elf, secrets=held)
        assert "an npm token: /usr/lib/libx.so" in secrets(with_files(good, library)).observed

    def test_one_that_a_later_layer_removed_is_found(self, good):
        file = File("/etc/app.conf", "file", secrets=frozenset({"a GitHub token"}))
        gone = with_files(with_files(good, file), removed=("/etc/app.conf",))
        assert outcome(secrets(gone)) == (
            "fail",
            "a GitHub token: /etc/app.conf (layer 3, hidden by a later one)",
        )

    @pytest.mark.parametrize("path", ["/root/.netrc", "/root/.git-credentials", "/x/id_rsa"])
    def test_a_file_for_secrets_is_found_by_its_name(self, good, path):
        assert path in secrets(with_files(good, File(path, "file", size=10))).observed
        assert secrets(with_files(good, File(path, "file", size=0))).status == "pass"

    @pytest.mark.parametrize(("path", "text", "what"), LOGINS)
    def test_a_login_in_a_programs_settings_is_found(self, path, text, what):
        assert in_file(path, text.encode()) == {what}

    @pytest.mark.parametrize(("path", "text"), NO_LOGINS)
    def test_settings_without_a_login_have_none(self, path, text):
        assert in_file(path, text.encode()) == frozenset()

    @pytest.mark.parametrize("path", ["/etc/app/mirror.yaml", "/opt/run.sh", "/var/log/dpkg.log"])
    def test_a_login_in_an_address_is_found_in_any_text(self, path):
        text = b"# from the mirror\nurl=https://me:hunter2@mirror.example.org/debian\n"
        assert in_file(path, text) == {"a password in an address"}
        token = b"https://0123abcd0123abcd@mirror.example.org"
        assert in_file(path, token) == {"a token in an address"}
        assert in_file(path, b"https://mirror.example.org:8080/@me/x?y=me@example.org") == set()
        assert in_file("/opt/llama/lib/x.so", b"\x7fELF\0" + text) == set()

    def test_an_example_in_another_file_is_no_login(self):
        text = b"# http://user:pass@proxy.example.org:3128/, password=..."
        assert in_file("/usr/lib/python3/urllib/request.py", text) == frozenset()

    @pytest.mark.parametrize(
        "command",
        [
            f"RUN curl -H 'Authorization: Bearer {TOKENS['a GitHub token']}' x",
            "RUN |1 NPM_TOKEN=abc /bin/sh -c make",
            "RUN git clone https://user:pass@example.org/x.git",
            "RUN git clone https://0123abcd0123abcd@example.org/x.git",
            "RUN git clone https://x-access-token@example.org/x.git",
            "RUN curl -s -u me:hunter2 https://example.org/x",
            'CMD ["--api-key" "hunter2"]',
            "RUN hf download --token hunter2 x/y",
        ],
    )
    def test_one_in_the_history_is_found(self, good, command):
        assert secrets(with_config(good, history=(command,))).status == "fail"

    @pytest.mark.parametrize(
        "command",
        [
            "RUN --mount=type=secret,id=token,env=TOKEN make",
            "RUN TOKEN=$(cat /run/secrets/token) make",
            "RUN curl https://example.org:8080/a@b",
            "RUN curl https://unpkg.example.org/package@1.2.3/x.js",
            "RUN git clone https://git@example.org/x.git",
            "RUN git clone https://first.last%40example.org@example.org/x.git",
            "RUN git clone https://${TOKEN}@example.org/x.git",
            "RUN curl -u $LOGIN https://example.org/x",
            "RUN docker login --password-stdin example.org",
            'CMD ["--api-key-file" "/run/secrets/key"]',
            "USER 10001:10001",
        ],
    )
    def test_a_command_that_keeps_its_secret_is_none(self, good, command):
        assert secrets(with_config(good, history=(command,))).status == "pass"

    @pytest.mark.parametrize(
        "setting",
        [
            "TOKENIZERS_PARALLELISM=false",
            "MAX_TOKENS=4096",
            "MAX_TOKENS=10000000",
            "TOKEN_BIAS=-1",
            "TEMPERATURE_TOKEN_RATIO=0.5",
            "HF_TOKEN_PATH=/run/secrets/token",
            "HF_TOKEN_PATH=/token",
            "HF_TOKEN_PATH=~/.cache/token",
            "USE_TOKEN='yes'",
            "HF_HUB_DISABLE_IMPLICIT_TOKEN=1",
            "TOKENIZER=llama",
            "TOKENIZER_PATH=models/tokenizer",
            "TOKENIZER_MODE=auto",
            "EOS_TOKEN=<|im_end|>",
            "SPECIAL_TOKENS_MAP=special_tokens_map.json",
            "TOKEN_TYPE=bearer",
            "API_KEY_HEADER=X-Api-Key",
            "MAX_TOKENS=4k",
            "MAX_TOKENS=32_768",
            "MAX_TOKENS=unlimited",
            "TOKENS_PER_SECOND=1e3",
            "SECRETS_MANAGER=vault",
            "ACCESS_KEY_ROTATION=90d",
            "TOKEN_TTL=15min",
            "TOKEN_EXPIRY=24h",
            "PASSWORD_MIN_LENGTH=12",
            "PASSWORD_POLICY=strict",
            "PASSWORD_RETRIES=3",
            "MAX_API_KEYS=5",
            "OAUTH_TOKEN_URL=https://example.org/oauth/token",
            "CREDENTIALS_HOST=vault.example.org:8200",
            "CACHE_KEY=linux-v1",
            "PRIMARY_KEY=id",
            "SSH_PUBLIC_KEY=ssh-ed25519",
            "REPO_KEY=/usr/share/keyrings/x.gpg",
            "APT_KEY_DONT_WARN_ON_DANGEROUS_USAGE=DontWarn",
            "KEYBOARD=de",
            "MONKEY=hunter2",
            "PASSWORD=${PASSWORD}",
            "PASSWORD=$PASSWORD",
            "PWD=/opt/llama",
            "PATH=/usr/bin",
            "GPG_KEY=7169605F62C751356D054A26A821E680E5FA6305",
        ],
    )
    def test_a_setting_whose_name_sounds_like_a_secret_is_none(self, good, setting):
        assert secrets(with_config(good, environment=(setting,))).status == "pass"

    @pytest.mark.parametrize(
        "setting",
        [
            "API_TOKEN=hunter2",
            "API_TOKEN=4096abc",
            "API_TOKEN=falsehood",
            "API_TOKEN=/etc/hunter2",
            "PASSWORD=123456",
            "AWS_SECRET_ACCESS_KEY=/ab/cd+1",
            "HF_TOKEN_PATH=hunter2",
            "MAX_TOKENS=hunter2",
            "THREADPAD_TOKEN=hunter2",
            "DB_PASS=hunter2",
            "PASS=hunter2",
            "MYSQL_PWD=hunter2",
            "GH_PAT=hunter2",
            "SSH_PASSPHRASE=hunter2",
            "SIGNING_PRIVATE_KEY=hunter2",
            "AccountKey=hunter2",
            "OPENAI_KEY=hunter2",
            "WANDB_KEY=0123456789abcdef0123456789abcdef01234567",
            "KEY=hunter2",
            "KEY_1=hunter2",
            "ENCRYPTION_KEY=hunter2",
            "SIGNING_KEY_V2=hunter2",
            "openai_key=hunter2",
            "OPENAI_APIKEY=hunter2",
            "GPG_KEY=hunter2",
            "SSHPASS=hunter2",
            "BASIC_AUTH=me:hunter2",
            "PASSWORD=$up3rs3cret",
            "PASSWORD=$ecretpassword",
            "PASSWORD=pa$$word",
            "ACCESS_KEY_ROTATION=hunter2",
            "SECRET_ACCESS_KEY=/etc/x.pem",
            "TOKEN_URL=hunter2",
            "MAX_TOKENS=4kilohunters2",
        ],
    )
    def test_a_value_that_is_no_setting_is_a_secret(self, good, setting):
        assert secrets(with_config(good, environment=(setting,))).status == "fail"

    @pytest.mark.parametrize(
        "command",
        [
            "RUN curl -H 'Authorization: token abcdef1234567890' https://example.org",
            "RUN curl -H 'x-api-key: abcdef1234567890' https://example.org",
            "RUN curl -H 'PRIVATE-TOKEN: abcdef1234567890' https://example.org",
            "RUN docker login -u me -p hunter2 example.org",
            "RUN docker login -u me --password=hunter2 example.org",
            "RUN sshpass -p hunter2 ssh example.org",
            "RUN PASSWORD=$up3rs3cret make",
            "RUN |1 PASSWORD=$up3rS3cret /bin/sh -c make",
            "ADD https://example.org/x.gguf?sv=2024&sig=abcdef1234567890%3D /x.gguf",
            "RUN curl https://example.org/v1?key=abcdef1234567890",
        ],
    )
    def test_other_logins_in_the_history_are_found(self, good, command):
        assert secrets(with_config(good, history=(command,))).status == "fail"

    @pytest.mark.parametrize(
        "command",
        [
            "RUN curl -H 'x-api-key: $KEY' https://example.org",
            "RUN docker login -u me -p $PASS example.org",
            "RUN docker login -u me --password-stdin < /run/secrets/x",
            'RUN sshpass -p "$PASS" ssh example.org',
            "RUN docker run -p 8080:8080 x",
            "RUN PASSWORD=$password make",
            "RUN PASSWORD=$token2 make",
            "RUN PASSWORD=$1 make",
            "RUN KEY=`cat /run/secrets/x` make",
            "RUN for key in a b; do gpg --recv-keys $key; done",
            "RUN sort --key=2 x",
            "RUN curl https://example.org/v1?key=$KEY",
        ],
    )
    def test_other_logins_by_a_variable_are_none(self, good, command):
        assert secrets(with_config(good, history=(command,))).status == "pass"

    def test_a_private_key_in_a_block_is_found(self, good):
        block = "-----BEGIN PGP PRIVATE KEY " + "BLOCK-----\n\n" + LETTERS * 4
        assert secrets(with_config(good, labels={"x": block})).status == "fail"

    def test_one_in_the_healthcheck_is_found(self, good):
        test = ("CMD", "curl", "-H", "Authorization: Bearer abcdef1234567890", URL)
        assert outcome(secrets(with_config(good, healthcheck=test))) == (
            "fail",
            "a login in a header: in the healthcheck",
        )

    def test_no_rule_on_the_launch_shows_one(self, good):
        header = "Authorization: Bearer hunter2hunter2"
        shell = with_files(good, SH, CURL)
        for changes in (
            {"entrypoint": ("/opt/llama/llama-server", "--api-key", "hunter2")},
            {"entrypoint": ("/usr/bin/sh", "--api-key", "hunter2")},
            {"command": ("--api-key=hunter2",)},
            {"healthcheck": ("CMD", "curl", "-f", "-H", header, URL)},
            {"healthcheck": ("CMD", "gone", "-H", header, URL)},
            {"healthcheck": ("CMD-SHELL", f"curl -H '{header}' {URL} || true")},
            {"environment": ("LLAMA_ARG_MODEL_URL=https://me:hunter2@example.org/x.gguf",)},
        ):
            subject = with_config(shell, **changes)
            for rule in (entrypoint, healthcheck, settings):
                assert "hunter2" not in rule(subject).observed

    def test_a_bearer_header_in_the_history_is_a_login(self, good):
        command = "RUN curl -H 'Authorization: Bearer abcdef1234567890' https://example.org"
        assert outcome(secrets(with_config(good, history=(command,)))) == (
            "fail",
            "a login in a header: in the history",
        )

    def test_one_in_the_environment_is_found(self, good):
        found = secrets(with_config(good, environment=("LLAMA_API_KEY=hunter2",)))
        assert outcome(found) == ("fail", "a value of LLAMA_API_KEY: in the environment")

    def test_one_in_the_command_is_found(self, good):
        found = secrets(with_config(good, command=("--api-key", "hunter2")))
        assert outcome(found) == ("fail", "a value of api-key: in the command")

    def test_one_in_a_label_is_found(self, good):
        labelled = with_config(good, labels={"x": TOKENS["a Hugging Face token"]})
        assert outcome(secrets(labelled)) == ("fail", "a Hugging Face token: in a label")


class TestDeviceCode:
    def test_every_unit_has_the_pinned_architecture(self, cuda):
        units = (frozenset({SM_86}), frozenset({SM_86}))
        assert outcome(device_code(cuda(*units))) == ("pass", "sm_86 in 2 units")

    @pytest.mark.parametrize("architectures", [("86",), ("120",), ("86", "89", "120")])
    @pytest.mark.parametrize("ptx", [50, 80, 86])
    def test_ptx_that_becomes_it_is_not_enough(self, cuda, architectures, ptx):
        found = device_code(cuda(frozenset({Code("ptx", ptx)}), architectures=architectures))
        assert (found.status, "nothing for" in found.observed) == ("fail", True)

    def test_ptx_beside_the_code_does_no_harm(self, cuda):
        assert device_code(cuda(frozenset({SM_86, PTX_80}))).status == "pass"

    def test_older_code_that_runs_there_is_not_enough(self, cuda):
        assert device_code(cuda(frozenset({SM_80}))).status == "fail"

    def test_one_unit_of_a_variant_for_several_lacks_one_of_them(self, cuda):
        every = frozenset({SM_86, Code("sass", 89), Code("sass", 120)})
        several = ("86", "89", "120")
        assert device_code(cuda(*[every] * 200, architectures=several)).status == "pass"
        found = device_code(cuda(*[every] * 200, every - {SM_86}, architectures=several))
        assert "nothing for 86 in 1 of 201 units" in found.observed

    def test_a_unit_that_lacks_it_fails(self, cuda):
        found = device_code(cuda(frozenset({SM_86}), frozenset({SM_80})))
        assert outcome(found) == (
            "fail",
            "nothing for 86 in 1 of 2 units of /opt/llama/libggml-cuda.so",
        )

    def test_code_that_no_pinned_gpu_runs_fails(self, cuda):
        assert outcome(device_code(cuda(frozenset({SM_86, SM_75})))) == (
            "fail",
            "sm_75 runs on none of them",
        )

    def test_each_of_several_architectures_must_be_there(self, cuda):
        found = device_code(cuda(frozenset({SM_86}), architectures=("86", "120a")))
        assert "nothing for 120" in found.observed

    def test_a_pruned_cublas_may_hold_older_code_that_runs_there(self, slim):
        found = device_code(slim(frozenset({SM_86}), frozenset({THEIR_SM_80})))
        assert outcome(found) == (
            "pass",
            "sm_80, sm_86 in 2 units; 1 of them hold only older code that runs there: "
            "cuBLAS is linked in",
        )

    def test_an_unknown_recipes_label_names_the_toolkit(self, slim):
        image = slim(frozenset({SM_86}), frozenset({THEIR_SM_80}))
        label = "io.github.turboquant-builder"
        unknown = {RECIPE: "c" * 64, f"{label}.cuda": "12.4.131"}
        unknown |= {f"{label}.cuda-architectures": "86", f"{label}.cublas": "pruned"}
        assert device_code(with_config(image, labels=unknown)).status == "pass"
        other = unknown | {"io.github.turboquant-builder.cuda": "12.6.3"}
        assert device_code(with_config(image, labels=other)).status == "unproven"

    def test_a_unit_of_ours_beside_a_pruned_cublas_may_not(self, slim):
        units = (*[frozenset({SM_86})] * 230, frozenset({SM_80}), *[frozenset({THEIR_SM_80})] * 150)
        assert outcome(device_code(slim(*units))) == (
            "fail",
            "nothing for 86 in 1 of 231 units of /opt/llama/libggml-cuda.so",
        )

    @pytest.mark.parametrize("code", [SM_80, THEIR_SM_80], ids=["ours", "not told apart"])
    def test_a_unit_that_may_be_ours_or_cublass_leaves_it_unproven(self, cuda, code):
        units = [frozenset({SM_86})] * 356 + [frozenset({code})] * 153
        assert outcome(device_code(cuda(*units, cublas="pruned"))) == (
            "unproven",
            "not proven: 153 of 509 units lack one, and may be cuBLAS's or ours",
        )

    def test_a_known_toolkit_tells_nothing_where_no_unit_has_cublass_form(self, slim):
        units = [frozenset({SM_86})] * 356 + [frozenset({SM_80})] * 153
        assert device_code(slim(*units)).status == "unproven"

    @pytest.mark.parametrize("place", [0, 1500, 3000])
    def test_one_unit_among_thousands_is_not_enough_for_ours(self, cuda, place):
        units = [frozenset({SM_80})] * 3000
        units.insert(place, frozenset({SM_86}))
        found = device_code(cuda(*units, cublas="pruned"))
        assert (found.status, "nothing for 86 in 3000 of 3001" in found.observed) == ("fail", True)

    def test_the_linker_puts_ours_first(self, cuda):
        units = [frozenset({SM_80})] * 231 + [frozenset({SM_86})] * 200
        assert device_code(cuda(*units, cublas="pruned")).status == "fail"

    def test_a_pruned_cublas_alone_is_not_ours(self, slim):
        assert device_code(slim(frozenset({THEIR_SM_80}))).status == "fail"

    def test_older_code_alone_fails_beside_a_pruned_cublas_too(self, cuda):
        found = device_code(cuda(frozenset({SM_80}), cublas="pruned"))
        assert outcome(found) == (
            "fail",
            "nothing for 86 in 1 of 1 units of /opt/llama/libggml-cuda.so",
        )

    def test_a_cublas_that_was_not_pruned_fails(self, cuda):
        found = device_code(cuda(frozenset({SM_86}), frozenset({SM_75, SM_80}), cublas="pruned"))
        assert outcome(found) == ("fail", "sm_75 runs on none of them")

    def test_a_cuda_variant_without_device_code_fails(self, cuda):
        assert device_code(cuda()).status == "fail"

    def test_a_cpu_variant_with_device_code_fails(self, good):
        assert device_code(with_elf(good, CPU, units=(frozenset({SM_86}),))).status == "fail"

    def test_what_nvidia_compiled_is_not_looked_at(self, good):
        cublas = File(
            "/opt/llama/libcublas.so.12", "file", elf=Elf(MACHINE, units=(frozenset({SM_75}),))
        )
        assert device_code(with_files(good, cublas)).status == "pass"

    def test_a_file_without_a_table_of_sections_leaves_it_unproven(self, good):
        assert device_code(with_elf(good, CPU, units=None)).status == "unproven"

    def test_a_file_that_cannot_be_read_hides_no_code_that_nobody_runs(self, cuda):
        unread = with_elf(cuda(frozenset({SM_86, SM_75})), CPU, units=None)
        assert device_code(unread).status == "fail"


class TestCpuBaseline:
    def test_an_extension_above_it_is_named_with_an_instruction(self, good):
        native = with_elf(good, CPU, extensions={"AVX": "vaddps"})
        assert outcome(cpu_baseline(native)) == (
            "fail",
            "/opt/llama/libggml-cpu.so needs AVX (vaddps)",
        )

    def test_the_next_level_has_it(self, good, real_pins):
        v3 = dataclasses.replace(good, pinned=subjects.pinned(real_pins, cpu="x86-64-v3"))
        assert cpu_baseline(with_elf(v3, CPU, extensions={"AVX": "vaddps"})).status == "pass"

    def test_backends_chosen_at_run_time_may_need_what_they_like(self, good, real_pins):
        every = dataclasses.replace(good, pinned=subjects.pinned(real_pins, "spiritbuun-cpu"))
        bare = with_elf(every, CPU, extensions={})
        file = File(
            "/opt/llama/libggml-cpu-zen4.so",
            "file",
            elf=Elf(MACHINE, extensions={"AVX512F": "vaddps"}),
        )
        assert cpu_baseline(with_files(bare, file)).status == "pass"

    def test_they_are_chosen_only_where_the_variant_has_all(self, good):
        file = File(
            "/opt/llama/libggml-cpu-zen4.so", "file", elf=Elf(MACHINE, extensions={"AVX": "x"})
        )
        assert cpu_baseline(with_files(good, file)).status == "fail"

    @pytest.mark.parametrize(
        ("extensions", "status"),
        [
            ({"LZCNT": "lzcnt", "CPUID": "cpuid"}, "pass"),
            ({"LZCNT": "lzcnt"}, "fail"),
            ({"AVX": "vaddps", "CPUID": "cpuid"}, "fail"),
        ],
        ids=["dr_flac asks", "nobody asks", "not what it asks for"],
    )
    def test_libmtmd_asks_before_it_uses_lzcnt(self, good, extensions, status):
        file = File("/opt/llama/libmtmd.so.0.5.0", "file", elf=Elf(MACHINE, extensions=extensions))
        assert cpu_baseline(with_files(good, file)).status == status

    @pytest.mark.parametrize(
        ("cublas", "extensions", "status"),
        [
            ("pruned", {"AVX512F": "vmovups", "CPUID": "cpuid"}, "pass"),
            ("pruned", {"AVX512F": "vmovups"}, "fail"),
            ("shared", {"AVX512F": "vmovups", "CPUID": "cpuid"}, "fail"),
        ],
        ids=["cublasLt asks", "nobody asks", "cublasLt is elsewhere"],
    )
    def test_a_linked_cublas_asks_before_it_uses_avx512(
        self, good, real_pins, cublas, extensions, status
    ):
        variant = subjects.pinned(real_pins, "mainline-cuda12-sm86", cublas=cublas)
        file = File("/opt/llama/libggml-cuda.so", "file", elf=Elf(MACHINE, extensions=extensions))
        image = with_files(dataclasses.replace(good, pinned=variant), file, removed=(CPU.path,))
        assert cpu_baseline(image).status == status

    def test_no_other_file_is_believed_to_ask(self, good):
        asks = with_elf(good, CPU, extensions={"LZCNT": "lzcnt", "CPUID": "cpuid"})
        assert cpu_baseline(asks).status == "fail"

    def test_code_that_cannot_be_read_leaves_it_unproven(self, good):
        assert cpu_baseline(with_elf(good, CPU, extensions={"undecoded": "(bad)"})).status == (
            "unproven"
        )


def test_kv_types_that_help_offers():
    found = offered(subjects.HELP)
    types = ["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1"]
    assert found == {"k": types, "v": types}


def test_a_fork_that_lost_its_types(good, real_pins):
    fork = subjects.pinned(real_pins, "spiritbuun-cpu")
    found = kv_types(dataclasses.replace(good, pinned=fork))
    assert (found.status, "-ctk does not offer turbo4" in found.observed) == ("fail", True)


def test_kv_types_of_v_alone_are_missed(good):
    head, half, tail = subjects.HELP.partition("--cache-type-v ")
    text = head + half + tail.replace("q5_0, q5_1", "q6_0", 1)
    found = kv_types(dataclasses.replace(good, help=Printed(text, 0)))
    assert outcome(found) == ("fail", "-ctv does not offer q5_0, -ctv does not offer q5_1")


LOADER = "llama-server: error while loading shared libraries: {}: cannot open shared object file"


@pytest.mark.parametrize(
    ("text", "code", "status"),
    [
        (LOADER.format("libllama-common.so.0"), 127, "fail"),
        (LOADER.format("libcuda.so.1"), 127, "unproven"),
        ("it did not end in 30 s", None, "fail"),
        ("", 0, "fail"),
    ],
)
def test_a_server_that_does_not_print_its_version(good, text, code, status):
    assert version(dataclasses.replace(good, version=Printed(text, code))).status == status


def test_a_version_of_another_commit(good):
    other = dataclasses.replace(good, version=Printed(subjects.FORK_VERSION, 0))
    assert version(other).status == "fail"


def test_a_label_that_is_shorter_than_the_version(good):
    labelled = with_config(good, labels={REVISION: "0c1e570"})
    assert version(labelled).status == "pass"


def test_a_version_of_the_forks_form(good):
    labelled = with_config(good, labels={REVISION: "1c478819233f28b90be647040cac1ca7f4ee1c9c"})
    said = dataclasses.replace(labelled, version=Printed(subjects.FORK_VERSION, 0))
    assert outcome(version(said)) == ("pass", "it names 1c4788192")


@pytest.mark.parametrize("name", ["", "root", "0", "0:0", "root:llama", "nobody-knows"])
def test_a_user_that_is_root_or_unknown(good, name):
    assert user(with_config(good, user=name)).status == "fail"


def test_a_user_without_a_number_is_unknown(good):
    passwd = File("/etc/passwd", "file", text=b"odd:x:abc:\nshort:x\n\xff:x:0:0\n")
    odd = with_config(with_files(good, passwd), user="odd")
    assert outcome(user(odd)) == ("fail", "the image knows no user odd")
    assert user(with_config(odd, user="short")).status == "fail"


@pytest.mark.parametrize("name", ["10001", "llama", "llama:llama"])
def test_a_user_without_rights(good, name):
    assert user(with_config(good, user=name)).status == "pass"


@pytest.mark.parametrize(
    "words",
    [
        ("/bin/sh", "-c", "/opt/llama/llama-server"),
        ("/usr/local/bin/healthcheck",),
        ("/usr/bin/tini", "--", "/bin/bash", "-c", "llama-server"),
        ("/usr/bin/tini", "--"),
        ("/usr/bin/dumb-init", "/opt/llama/llama-server"),
        ("/opt/llama/gone",),
        (),
    ],
    ids=["shell form", "a script", "a shell", "nothing", "no init there", "no server", "none"],
)
def test_an_entrypoint_that_hides_the_server(good, words):
    assert entrypoint(with_config(good, entrypoint=words)).status == "fail"


def test_a_script_in_the_servers_place_hides_it(good):
    script = with_files(good, dataclasses.replace(SERVER, elf=None, script=True))
    assert outcome(entrypoint(script)) == ("fail", "/opt/llama/llama-server is a script")


@pytest.mark.parametrize(
    "words",
    [
        ("/opt/llama/llama-server",),
        ("/usr/bin/tini", "/opt/llama/llama-server"),
        ("tini", "-e", "143", "--", "/opt/llama/llama-server"),
    ],
)
def test_an_entrypoint_that_starts_the_server(good, words):
    assert entrypoint(with_config(good, entrypoint=words)).status == "pass"


SH = File("/usr/bin/sh", "file", 0o755, elf=Elf(MACHINE))
CURL = File("/usr/bin/curl", "file", 0o755, elf=Elf(MACHINE))
TRUE = File("/usr/bin/true", "file", 0o755, elf=Elf(MACHINE))
ENV = File("/usr/bin/env", "file", 0o755, elf=Elf(MACHINE))
CAT = File("/usr/bin/cat", "file", 0o755, elf=Elf(MACHINE))
URL = "http://localhost:8080/health"


@pytest.mark.parametrize(
    "test",
    [
        ("CMD", "curl", "-f", URL),
        ("CMD-SHELL", f"curl -f {URL} || exit 1"),
        ("CMD-SHELL", f"curl -fsS {URL} >/dev/null 2>&1 || exit 1; exit 0"),
        ("CMD-SHELL", "PORT=8080 exec curl -f http://localhost:$PORT/health &>/dev/null"),
        ("CMD-SHELL", f"if curl -f {URL}; then exit 0; else exit 1; fi"),
        ("CMD-SHELL", f'test "$(curl -s -o /dev/null -w %{{http_code}} {URL})" = 200'),
        ("CMD-SHELL", f"curl -f {URL}\nexit $?"),
        ("CMD-SHELL", f"curl -f {URL} && true"),
        ("CMD-SHELL", "case $(curl -s x) in ok) exit 0;; fine) exit 0;; esac; exit 1"),
        ("CMD-SHELL", "$CHECK"),
        ("CMD-SHELL", "a quote that 'does not end"),
        ("CMD", "sh", "-c", f"curl -f {URL}"),
        ("CMD", "bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8080"),
        ("CMD", "bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8080 && echo up"),
        ("CMD", "bash", "-ec", "exec 3<>/dev/tcp/127.0.0.1/8080"),
        ("CMD-SHELL", f"set -o pipefail; curl -f {URL} | cat"),
        ("CMD", "env", "curl", "-f", URL),
        ("CMD", "env", "-i", "curl", "-f", URL),
        ("CMD", "env", "X=1", "curl", "-f", URL),
        ("CMD", "env"),
    ],
)
def test_a_healthcheck_that_can_say_no(good, test):
    found = healthcheck(with_config(with_files(good, SH, CURL, ENV, CAT), healthcheck=test))
    assert found.status == "pass", found


@pytest.mark.parametrize(
    ("test", "why"),
    [
        ((), "none"),
        (("NONE",), "none"),
        (("CMD",), "nothing to run"),
        (("CMD", "/usr/local/bin/gone"), "/usr/local/bin/gone is not in the image"),
        (("CMD", "wget", "-q", URL), "wget is not in the image"),
        (("CMD-SHELL", f"wget -q {URL} || exit 1"), "wget is not in the image"),
        (("CMD-SHELL", f"curl -s {URL} | grep -q ok"), "grep is not in the image"),
        (("CMD-SHELL", f"X=1 wget -q {URL} 2>&1"), "wget is not in the image"),
        (("CMD", "sh", "-c", f"wget -q {URL}"), "wget is not in the image"),
        (("CMD", "true"), "it always says yes"),
        (("CMD", "/bin/true"), "it always says yes"),
        (("CMD-SHELL", "true"), "it always says yes"),
        (("CMD-SHELL", "exit 0"), "it always says yes"),
        (("CMD-SHELL", f"curl -f {URL} || true"), "it always says yes"),
        (("CMD-SHELL", f"curl -f {URL}; exit 0"), "it always says yes"),
        (("CMD-SHELL", f"curl -f {URL} || echo down"), "it always says yes"),
        (("CMD", "sh", "-c", "exit 0"), "it always says yes"),
        (("CMD", "sh", "-ec", "true"), "it always says yes"),
        (("CMD", "env", "true"), "it always says yes"),
        (("CMD-SHELL", ""), "it always says yes"),
        (("CMD-SHELL", f"# curl -f {URL}"), "it always says yes"),
        (("CMD-SHELL", f"curl -f {URL} | cat"), "it always says yes"),
        (("CMD", "env", "wget", URL), "wget is not in the image"),
        (("CMD", "env", "X=1", "true"), "it always says yes"),
        (("CMD-SHELL", "[ 1 = 1 ]"), "it always says yes"),
        (("CMD-SHELL", "test 2 -gt 1"), "it always says yes"),
        (("CMD-SHELL", "[ ok ]"), "it always says yes"),
        (("CMD-SHELL", "! false"), "it always says yes"),
        (("CMD-SHELL", "! ! true"), "it always says yes"),
        (("CMD-SHELL", "! [ 1 = 2 ]"), "it always says yes"),
        (("CMD-SHELL", "false || true"), "it always says yes"),
        (("CMD-SHELL", "true && exec true"), "it always says yes"),
        (("CMD-SHELL", "exec true"), "it always says yes"),
        (("CMD-SHELL", "X=1"), "it always says yes"),
        (("CMD-SHELL", f"if curl -f {URL}; then echo up; fi"), "it always says yes"),
        (("CMD-SHELL", f"set -e; if curl {URL}; then exit 0; fi"), "it always says yes"),
        (("CMD-SHELL", f"if curl {URL}; then true; else true; fi"), "it always says yes"),
        (("CMD-SHELL", f"if false; then exit 1; fi; curl {URL} & true"), "it always says yes"),
        (("CMD-SHELL", f"(curl -f {URL}; exit 0)"), "it always says yes"),
        (("CMD-SHELL", f"{{ curl -f {URL}; true; }}"), "it always says yes"),
        (("CMD-SHELL", f"curl -f {URL} &"), "it always says yes"),
        (("CMD-SHELL", f"curl -f {URL} || exit 0"), "it always says yes"),
        (("CMD-SHELL", f"curl -f {URL} | tee; true # || exit 1"), "it always says yes"),
        (("CMD-SHELL", f"curl -f {URL} \\\n  || true"), "it always says yes"),
        (("CMD-SHELL", "sh -c 'exit 0'"), "it always says yes"),
        (("CMD", "sh", "-c", f"curl -f {URL}\ntrue"), "it always says yes"),
        (("CMD-SHELL", f"curl -f {URL} && false"), "it always says no"),
        (("CMD-SHELL", "exit 1"), "it always says no"),
    ],
)
def test_a_healthcheck_that_is_of_no_use(good, test, why):
    image = with_files(good, SH, CURL, TRUE, ENV, CAT)
    found = healthcheck(with_config(image, healthcheck=test))
    assert found.status == "fail"
    assert found.observed.endswith(why)


@pytest.mark.parametrize(
    ("command", "yes"),
    [
        ("sleep 0", True),
        ("timeout 5 true", True),
        ("date", True),
        (f"wget -q {URL}", False),
        ("[ -f /tmp/healthy ]", False),
        ('[ "$STATUS" = ok ]', False),
        (f'[ "$(curl -s {URL})" = ok ]', False),
        (f"[ $(curl -s {URL} | wc -c) -gt 1 ]", False),
        (f"X=$(curl -f {URL})", False),
        (f"X=`curl -f {URL}`", False),
        (f"set -e; curl -f {URL}; true", False),
        (f"set -eo pipefail; curl -f {URL} | cat", False),
        (f"curl -f {URL} || exit 1; true", False),
        (f"if curl -f {URL}; then exit 0; else exit 1; fi", False),
        (f"if ! curl -f {URL}; then exit 1; fi", False),
        (f"if curl {URL}; then true; elif wget {URL}; then true; else false; fi", False),
        (f"curl -f {URL} >/dev/null 2>&1", False),
        (f"timeout 5 curl -f {URL}", False),
        (f"while ! curl -f {URL}; do sleep 1; done", False),
        (f"check() {{ curl -f {URL}; }}; check", False),
        (f"case $(curl {URL}) in ok) exit 0;; *) exit 1;; esac", False),
        (f"true; exec curl -f {URL}", False),
        (f"! curl {URL} | grep -q error", False),
        ("[ 1 = ", False),
    ],
)
def test_what_a_script_can_say(command, yes):
    assert health_words.always_yes(("CMD-SHELL", command)) is yes
    assert not health_words.always_no(("CMD-SHELL", command))


def test_a_healthcheck_for_a_shell_that_is_not_there(good):
    shell = with_config(with_files(good, CURL), healthcheck=("CMD-SHELL", f"curl -f {URL}"))
    assert healthcheck(shell).observed.endswith("/bin/sh is not in the image")
    in_bash = {"shell": ("/bin/bash", "-c")}
    assert healthcheck(with_config(shell, **in_bash)).status == "pass"


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("LLAMA_ARG_CTX_SIZE=512", "LLAMA_ARG_CTX_SIZE=512"),
        ("LLAMA_ARG_CTX_SIZE=", "LLAMA_ARG_CTX_SIZE="),
        ("LLAMA_ARG_HOST=127.0.0.1", "LLAMA_ARG_HOST=127.0.0.1"),
        ("LLAMA_ARG_PORT=8081", "LLAMA_ARG_PORT=8081"),
        ("LLAMA_ARG_HF_TOKEN=x", "LLAMA_ARG_HF_TOKEN is set"),
        ("LLAMA_API_KEY=x", "LLAMA_API_KEY is set"),
        ("TURBO_AUTO_ASYMMETRIC=0", "TURBO_AUTO_ASYMMETRIC=0"),
        ("GGML_CUDA_FORCE_MMQ=1", "GGML_CUDA_FORCE_MMQ=1"),
        ("LD_PRELOAD=/x.so", "LD_PRELOAD=/x.so"),
        ("NVIDIA_VISIBLE_DEVICES=void", "NVIDIA_VISIBLE_DEVICES=void"),
    ],
)
def test_a_setting_of_the_server_that_is_baked_in(good, setting, told):
    baked = with_config(good, environment=(*good.config.environment, setting))
    assert outcome(settings(baked)) == ("fail", told)


@pytest.mark.parametrize(
    "setting",
    [
        "LLAMA_ARG_HOST=0.0.0.0",
        "LLAMA_ARG_PORT=8080",
        "LLAMA_CACHE=/models",
        "NVIDIA_VISIBLE_DEVICES=all",
        "CUDA_VERSION=12.6.3",
        "LANG=C.UTF-8",
    ],
)
def test_a_setting_that_changes_nothing_of_a_plain_run(good, setting):
    assert settings(with_config(good, environment=(setting,))).status == "pass"


def test_what_an_image_says_of_itself_bends_no_terminal(good):
    colour = with_config(good, environment=("LLAMA_ARG_ALIAS=\x1b[31mred\nPASS \udce9",))
    assert settings(colour).observed == "LLAMA_ARG_ALIAS=\\x1b[31mred\\nPASS \\xe9"


def test_an_image_that_starts_nothing_has_no_option_baked_in(good):
    assert settings(with_config(good, entrypoint=(), command=())).status == "pass"
    assert settings(with_config(good, entrypoint=("tini",), command=())).status == "pass"


@pytest.mark.parametrize(
    ("entrypoint", "command"),
    [
        ((*subjects.CONFIG.entrypoint, "-c", "512"), ()),
        (subjects.CONFIG.entrypoint, ("-c", "512")),
        ((), ("llama-server", "-c", "512")),
    ],
    ids=["ENTRYPOINT", "CMD", "CMD alone"],
)
def test_an_option_of_the_server_that_is_baked_in(good, entrypoint, command):
    baked = with_config(good, entrypoint=entrypoint, command=command)
    assert outcome(settings(baked)) == ("fail", "the server's command line has -c")


class TestLabels:
    @pytest.mark.parametrize("name", [*sorted(set(subjects.LABELS) - OF_BUILDER), CLAIMED])
    def test_a_label_that_is_missing(self, good, name):
        left = {key: value for key, value in subjects.LABELS.items() if key != name}
        assert f"{name} is missing" in labels(with_config(good, labels=left)).observed

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            (REVISION, "1c478819233f28b90be647040cac1ca7f4ee1c9c"),
            ("org.opencontainers.image.title", "something else"),
            ("org.opencontainers.image.version", "b9999"),
            ("io.github.turboquant-builder.kv-types", "turbo4"),
            (SOURCE, "https://example.org/other.git"),
            (RECIPE, "not a digest"),
            (CLAIMED, "perhaps"),
            ("org.opencontainers.image.title", "llama-server, spiritbuun-cpu"),
            (SOURCE, ""),
            ("org.opencontainers.image.base.digest", ""),
        ],
    )
    def test_a_label_that_is_not_true(self, good, name, value):
        found = labels(with_config(good, labels=subjects.LABELS | {name: value}))
        assert (found.status, name in found.observed) == ("fail", True)

    def test_a_pruned_cublas_that_calls_itself_shared(self, good, real_pins):
        slim = dataclasses.replace(
            good, pinned=subjects.pinned(real_pins, "mainline-cuda12-sm86", cublas="pruned")
        )
        own = {"cuda": "12.6.3", "cuda-architectures": "86", "lowest-driver": "525.60.13"}
        own |= {"variant": "mainline-cuda12-sm86", "cublas": "shared"}
        changes = {f"io.github.turboquant-builder.{name}": value for name, value in own.items()}
        found = labels(with_config(slim, labels=subjects.LABELS | changes))
        assert "io.github.turboquant-builder.cublas is 'shared', not 'pruned'" in found.observed

    def test_the_receipt_is_believed_for_what_was_built(self, good):
        built = dataclasses.replace(good, receipt=receipt(commit="d" * 40))
        labelled = with_config(built, labels=subjects.LABELS | {REVISION: "d" * 40})
        assert labels(saying(labelled, "d" * 9)).status == "pass"

    def test_a_label_that_the_receipt_denies(self, good):
        built = dataclasses.replace(good, receipt=receipt(commit="d" * 40))
        assert REVISION in labels(built).observed

    @pytest.mark.parametrize(
        ("label", "left_out", "status"),
        [
            ("codebooks", ["codebooks"], "pass"),
            ("codebooks", [], "fail"),
            (None, ["codebooks"], "fail"),
            ("codebooks", ["kv_types.turbo2"], "fail"),
        ],
    )
    def test_what_was_left_out_is_as_the_receipt_says(self, good, label, left_out, status):
        built = dataclasses.replace(good, receipt=receipt(left_out=left_out))
        said = {LEFT_OUT: label} if label else {}
        found = labels(with_config(built, labels=subjects.LABELS | said))
        assert (found.status, LEFT_OUT in found.observed) == (status, status == "fail")

    def test_an_image_that_builder_did_not_build_is_unproven(self, good):
        left = {key: value for key, value in subjects.LABELS.items() if key not in OF_BUILDER}
        dated = left | {CREATED: "2026-05-18T15:26:29Z"}
        assert labels(with_config(good, labels=dated)).status == "unproven"

    @pytest.mark.parametrize(
        ("changes", "said", "differs"),
        [
            (
                {REVISION: "d" * 40},
                "d" * 9,
                f"{REVISION} is ddddddddd, the pinned commit is 0c1e57098",
            ),
            ({RECIPE: "c" * 64}, "0c1e57098", f"{RECIPE} is cccccccccccc…"),
            ({RECIPE: "c" * 64, TYPES: "q8_0"}, "0c1e57098", f"{TYPES} is 'q8_0', not ''"),
            ({RECIPE: "c" * 64, SOURCE: OLD_HOME}, "0c1e57098", f"{SOURCE} is '{OLD_HOME}'"),
        ],
        ids=["commit", "recipe", "types", "source"],
    )
    def test_a_release_from_earlier_pins_is_unproven_with_what_differs(
        self, good, changes, said, differs
    ):
        release = with_config(good, labels=subjects.LABELS | changes)
        found = labels(saying(release, said))
        assert (found.status, differs in found.observed) == ("unproven", True), found.observed

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            (REVISION, "d" * 40),
            ("org.opencontainers.image.version", "b9325"),
            (TYPES, "turbo4"),
            ("org.opencontainers.image.title", "llama-server, spiritbuun-cpu"),
            (CREATED, "yesterday"),
        ],
    )
    def test_a_release_that_contradicts_itself_fails(self, good, name, value):
        earlier = {RECIPE: "c" * 64, REVISION: "1c4788192" + "0" * 31}
        changes = earlier | {"org.opencontainers.image.version": "b9326", name: value}
        release = with_config(good, labels=subjects.LABELS | changes)
        said = dataclasses.replace(release, version=Printed(subjects.FORK_VERSION, 0))
        assert (labels(said).status, name in labels(said).observed) == ("fail", True)

    def test_a_release_with_its_receipt_is_proven_though_the_pins_moved(self, good):
        built = dataclasses.replace(good, receipt=receipt(dockerfile_sha256="c" * 64))
        release = with_config(built, labels=subjects.LABELS | {RECIPE: "c" * 64})
        assert labels(release).status == "pass"

    @pytest.mark.parametrize(
        ("changes", "status"),
        [
            ({}, "pass"),
            ({CLAIMED: "false"}, "fail"),
            ({CREATED: "2026-05-18T15:26:29Z"}, "pass"),
            ({CREATED: "yesterday"}, "fail"),
            ({CREATED: "2026-05-18T15:26:29"}, "fail"),
        ],
        ids=["unknown", "fetched from git", "a date", "no date", "no time zone"],
    )
    def test_a_date_may_be_empty_where_nobody_knows_it(self, good, changes, status):
        assert labels(with_config(good, labels=subjects.LABELS | changes)).status == status

    def test_the_pinned_commits_date_is_known(self, good, real_pins):
        fork = real_pins.forks["mainline"]
        pinned = dataclasses.replace(subjects.pinned(real_pins), commit=fork.commit)
        changes = {REVISION: fork.commit, "org.opencontainers.image.version": "b8993"}
        image = with_config(
            dataclasses.replace(good, pinned=pinned), labels=subjects.LABELS | changes
        )
        assert outcome(labels(saying(image, str(fork.commit)[:9]))) == (
            "fail",
            f"{CREATED} is '', the commit's date is 2026-04-30T21:19:10Z",
        )
        assert fork.date == datetime.datetime(2026, 4, 30, 21, 19, 10, tzinfo=datetime.UTC)


def saying(image, commit):
    """The image with a server that names this commit."""
    text = subjects.VERSION.replace("0c1e57098", commit)
    return dataclasses.replace(image, version=Printed(text, 0))


def receipt(**changes):
    base = BaseImage("runtime", "debian:trixie-slim", f"sha256:{'b' * 64}", "hub")
    made = Receipt(
        variant=subjects.VARIANT,
        fork="mainline",
        ref="master",
        commit="0c1e57098",
        commit_claimed=True,
        source="",
        build_number=0,
        image="",
        image_id="",
        size_bytes=0,
        compressed_bytes=0,
        bases=[base],
        dockerfile_sha256=subjects.RECIPE,
        created="",
        duration_s=0,
        stages=[],
        ccache=None,
        log="",
    )
    return dataclasses.replace(made, **changes)


def test_an_image_over_its_budget(good, real_pins):
    small = dataclasses.replace(good, pinned=subjects.pinned(real_pins, max_mb=1))
    assert size(with_files(small, File("/big", "file", size=500_000))).status == "fail"


@pytest.mark.parametrize("budget", [0, -5])
def test_a_budget_of_nothing_is_refused(budget):
    text = (ROOT / "pins.toml").read_text().replace("max_mb = 140", f"max_mb = {budget}")
    with pytest.raises(PinsError, match="max_mb: must be at least 1"):
        pins.parse(text)


def test_what_a_later_layer_hides_counts(good, real_pins):
    small = dataclasses.replace(good, pinned=subjects.pinned(real_pins, max_mb=1))
    big = with_files(small, File("/big", "file", size=500_000))
    assert size(with_files(big, removed=("/big",))).status == "fail"


def test_a_size_without_a_budget_is_unproven(good, real_pins):
    free = dataclasses.replace(good, pinned=subjects.pinned(real_pins, max_mb=None))
    assert size(free).status == "unproven"


def test_an_image_of_no_variant_is_unproven_where_a_rule_needs_one(good):
    stranger = dataclasses.replace(good, pinned="no label names its variant")
    found = {rule.__name__: rule(stranger).status for rule in audit.RULES}
    assert {name for name, status in found.items() if status == "unproven"} == {
        "device_code",
        "cpu_baseline",
        "kv_types",
        "labels",
        "size",
    }


class TestLayers:
    def test_a_later_file_lies_on_an_earlier_one(self):
        tree = image_tree.merge([layer(File("/a", "file", size=1)), layer(File("/a", "file"))])
        assert tree.files["/a"].size == 0

    def test_a_removed_folder_takes_its_files_along(self):
        gone = Layer((), removed=frozenset({"/a"}))
        assert set(image_tree.merge([layer(File("/a/b", "file")), gone]).files) == {"/"}

    def test_an_emptied_folder_keeps_what_its_own_layer_has(self):
        emptied = Layer((File("/a/new", "file"),), emptied=frozenset({"/a"}))
        assert set(image_tree.merge([layer(File("/a/old", "file")), emptied]).files) == {
            "/",
            "/a",
            "/a/new",
        }

    def test_a_file_in_a_folders_place_takes_its_files_along(self):
        tree = image_tree.merge([layer(File("/a/b", "file")), layer(File("/a", "file"))])
        assert "/a/b" not in tree.files

    @pytest.mark.parametrize("path", ["/lib/a.so", "/usr/lib/a.so", "/lib/../lib/./b.so"])
    def test_links_are_followed_in_every_part_of_a_path(self, path):
        tree = image_tree.merge(
            [
                layer(
                    File("/lib", "link", target="usr/lib"),
                    File("/usr/lib/a.so", "link", target="b.so"),
                    File("/usr/lib/b.so", "link", target="../../lib/c.so"),
                    File("/usr/lib/c.so", "file"),
                )
            ]
        )
        found = tree.resolve(path)
        assert found is not None
        assert found.path == "/usr/lib/c.so"

    def test_links_that_run_in_a_circle_lead_nowhere(self):
        tree = image_tree.merge(
            [layer(File("/a", "link", target="/b"), File("/b", "link", target="/a"))]
        )
        assert tree.resolve("/a") is None


def layer(*files):
    return Layer(files)


def test_a_number_of_any_length_is_read(good):
    digits = "1" * 5000
    assert user(with_config(good, user=digits)).status == "pass"
    assert user(with_config(good, user="0" * 5000)).status == "fail"
    version = {**good.config.labels, "org.opencontainers.image.version": f"b{digits}"}
    image = dataclasses.replace(good, version=Printed(subjects.FORK_VERSION, 0))
    assert "the server says 9326" in labels(with_config(image, labels=version)).observed


def test_where_one_layer_has_all_nobody_knows_whose_a_setuid_file_is(good):
    files = tuple(file for layer in good.layers for file in layer.files)
    one = dataclasses.replace(good, layers=(Layer(files),))
    assert outcome(permissions(one)) == (
        "unproven",
        "not proven: one layer has all, so 1 setuid or setgid files are the base's or not",
    )


@pytest.mark.parametrize("name", ["libnvcuvid.so.1", "libnvoptix.so.1", "libGLX_nvidia.so.0"])
def test_the_drivers_other_libraries_are_found_by_either_name(good, name):
    assert stub(with_files(good, File(f"/usr/lib/{name}", "file"))).status == "fail"
    assert stub(with_elf(good, CPU, soname=name)).status == "fail"


class TestOfOtherPins:
    """An older release is not held against what today's pins say of its variant."""

    @pytest.fixture
    def older(self, good):
        labels = {**good.config.labels, RECIPE: "0" * 64}
        return with_config(good, labels=labels)

    def test_its_size_has_another_budget(self, older, real_pins):
        pinned = subjects.pinned(real_pins, "mainline-cpu", max_mb=0)
        found = size(dataclasses.replace(older, pinned=pinned))
        assert found.status == "unproven"
        assert "today's pins render no Dockerfile 000000000000" in found.observed

    def test_it_has_the_kv_types_of_its_label(self, older, real_pins):
        fork = dataclasses.replace(
            older.pinned.fork, kv_types=real_pins.forks["spiritbuun"].kv_types
        )
        newer = dataclasses.replace(older.pinned, fork=fork)
        assert kv_types(dataclasses.replace(older, pinned=newer)).status == "pass"
        labelled = with_config(older, labels={**older.config.labels, TYPES: "turbo9"})
        assert "-ctk does not offer turbo9" in kv_types(labelled).observed

    def test_its_device_code_is_for_other_gpus(self, cuda):
        image = cuda(frozenset({SM_75}))
        own = {RECIPE: "0" * 64, VARIANT: image.pinned.name}
        labels = {**image.config.labels, **own}
        assert device_code(with_config(image, labels=labels)).status == "unproven"
        same = {
            **labels,
            "io.github.turboquant-builder.cuda-architectures": "86",
            "io.github.turboquant-builder.cublas": image.pinned.variant.cublas,
        }
        assert device_code(with_config(image, labels=same)).status == "fail"

    def test_an_image_of_another_variant_is_held_against_what_was_asked(self, older, real_pins):
        asked = subjects.pinned(real_pins, "spiritbuun-cpu")
        found = kv_types(dataclasses.replace(older, pinned=asked))
        assert "-ctk does not offer turbo4" in found.observed

    def test_an_image_of_these_pins_is_held_against_them(self, good, cuda, real_pins):
        pinned = subjects.pinned(real_pins, "mainline-cpu", max_mb=0)
        pinned = dataclasses.replace(pinned, recipes=good.pinned.recipes)
        assert size(dataclasses.replace(good, pinned=pinned)).status == "fail"
        assert device_code(cuda(frozenset({SM_75}))).status == "fail"
