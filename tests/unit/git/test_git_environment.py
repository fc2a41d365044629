"""Whatever a user's git is set to, and whoever calls builder: what it does is the same."""

import ast
import base64
import os
import resource
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from pathlib import Path

import pytest

from builder.bump import fork as bump
from builder.common.errors import EngineError, FileError, RemoteUnavailableError, UsageError
from builder.git import remote as git
from builder.git.github import Github
from builder.git.github_threads import Threads
from builder.git.pushed_branches import Checkout, signed
from builder.git.run import CommandError, run_git
from builder.nightly import pull_request as propose
from builder.pins import load as pins
from builder.release.record_branch import RecordBranch
from builder.sources import tree as source
from tests.conftest import ROOT, Recorder, Repository, builder
from tests.support import github_api
from tests.support.github_api import Answer, page

pytestmark = pytest.mark.usefixtures("private_cache")

PLACES = [
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_COMMON_DIR",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_CEILING_DIRECTORIES",
    "GIT_PREFIX",
    "GIT_QUARANTINE_PATH",
    "GIT_SHALLOW_FILE",
    "GIT_GRAFT_FILE",
    "GIT_TEMPLATE_DIR",
    "GIT_EXEC_PATH",
]
"""Those of git(1) that name a folder or file: here all are somebody's repository."""

TOKEN = "".join(["not", "a", "real", "one"])

OTHERS = {
    "GIT_ALLOW_PROTOCOL": "none",
    "GIT_ATTR_SOURCE": "HEAD",
    "GIT_AUTHOR_DATE": "never",
    "GIT_COMMITTER_DATE": "never",
    "GIT_CONFIG": "/nowhere",
    "GIT_CONFIG_COUNT": "many",
    "GIT_CONFIG_PARAMETERS": "'core.bare=true'",
    "GIT_DEFAULT_HASH": "sha256",
    "GIT_DEFAULT_REF_FORMAT": "nonsense",
    "GIT_EDITOR": "false",
    "GIT_EXTERNAL_DIFF": "false",
    "GIT_GLOB_PATHSPECS": "1",
    "GIT_ICASE_PATHSPECS": "1",
    "GIT_LITERAL_PATHSPECS": "1",
    "GIT_NAMESPACE": "somewhere",
    "GIT_NOGLOB_PATHSPECS": "1",
    "GIT_NO_REPLACE_OBJECTS": "0",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_PAGER": "false",
    "GIT_PROTOCOL": "version=1",
    "GIT_PROTOCOL_FROM_USER": "0",
    "GIT_REDIRECT_STDOUT": "/nowhere",
    "GIT_REFLOG_ACTION": "hook",
    "GIT_REPLACE_REF_BASE": "refs/heads/",
    "GIT_SEQUENCE_EDITOR": "false",
    "GIT_SSH": "false",
    "GIT_TRACE": "1",
    "GIT_TRACE_PACKET": "1",
    "LANGUAGE": "de",
    "LC_ALL": "de_DE.UTF-8",
}


class Clone(Repository):
    """An existing repository."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.url = path.as_uri()


def snapshot(repository: Repository) -> dict[str, bytes]:
    found = [path for path in (repository.path / ".git").rglob("*") if path.is_file()]
    return {str(path.relative_to(repository.path)): path.read_bytes() for path in found}


@pytest.fixture
def somebodys(tmp_path: Path) -> Repository:
    made = Repository(tmp_path / "somebody")
    made.commit("theirs", theirs_md="theirs")
    return made


@pytest.fixture
def file(tiny_pins: Path, repository: Repository) -> Path:
    bump.bump(tiny_pins, bump.Request(to=repository.git("rev-parse", "HEAD~2")), None, Recorder())
    return tiny_pins


# --- Variables that a caller leaves behind


@pytest.mark.parametrize("variables", ["places", "others", "both"])
def test_no_variable_of_gits_leads_anywhere_else(
    repository, somebodys, file, monkeypatch, progress, variables
):
    head, before = repository.git("rev-parse", "HEAD"), snapshot(somebodys)
    remote = git.Remote("tiny", repository.url)
    if variables != "others":
        for name in PLACES:
            monkeypatch.setenv(name, str(somebodys.path / ".git"))
    if variables != "places":
        for name, value in OTHERS.items():
            monkeypatch.setenv(name, value)
    assert git.resolve(remote, "master", progress) == head
    assert git.build_number(remote, head, progress) == 3
    tree, _ = git.checkout(remote, head, progress)
    assert (tree / "notes.md").read_text() == "third"
    report = bump.bump(file, bump.Request(grouped=True, dry_run=True), None, progress)
    assert [len(one.commits) for one in report.groups] == [2]
    assert "1 file changed" in git.diff_stat(remote, report.old.commit, head, progress)
    assert git.top(file) is None
    looked = builder("freshness", "--pins", file)
    assert (looked.returncode in {0, 1}, "Traceback" in looked.stderr) == (True, False)
    monkeypatch.undo()
    assert snapshot(somebodys) == before


def test_a_hook_of_a_linked_worktree_may_run_builder(somebodys, file, tmp_path):
    """git exports GIT_DIR to a hook; the repository was made bare by what ran in it."""
    linked, remote = Clone(tmp_path / "linked"), tmp_path / "remote.git"
    subprocess.run(["git", "init", "--quiet", "--bare", str(remote)], check=True)
    somebodys.git("worktree", "add", "--quiet", str(linked.path))
    hook = somebodys.path / ".git" / "hooks" / "pre-push"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(
        f"#!/bin/sh\nPYTHONPATH={ROOT} {sys.executable} -m builder freshness --pins {file} "
        f"> {tmp_path}/said 2>&1\necho $? > {tmp_path}/code\n"
    )
    hook.chmod(0o755)
    before = (somebodys.path / ".git" / "config").read_bytes()
    linked.git("push", "--quiet", str(remote), "HEAD:refs/heads/pushed")
    assert (tmp_path / "code").read_text().strip() in {"0", "1"}, (tmp_path / "said").read_text()
    assert (somebodys.path / ".git" / "config").read_bytes() == before
    assert linked.git("status", "--short") == ""


def test_every_call_of_git_goes_through_one_place():
    """By the source: no other module starts a program called git, or a library that does."""
    calls, importers = set(), set()
    for path in (ROOT / "builder").rglob("*.py"):
        name = str(path.relative_to(ROOT / "builder"))
        for node in ast.walk(ast.parse(path.read_text())):
            first = node.elts[0] if isinstance(node, ast.List | ast.Tuple) and node.elts else None
            if isinstance(first, ast.Constant) and first.value == "git":
                calls.add(name)
            modules = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if {"git", "dulwich", "pygit2"} & {one.split(".")[0] for one in modules}:
                importers.add(name)
    assert importers == {"git/run.py"}
    assert calls == {"doctor/install_plan.py", "git/run.py"}, "the plan installs it"


# --- The user's settings


def test_settings_of_the_environment_count_beside_a_token(repository, monkeypatch):
    mirror = f"url.{repository.url}.insteadOf"
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", mirror)
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "https://host.invalid/fork")
    with_token = signed(Github(token=TOKEN))
    words = ("ls-remote", "https://host.invalid/fork", "HEAD")
    said = git.command(repository.path.parent, words, with_token)
    assert said.split()[0] == repository.git("rev-parse", "HEAD")
    header = next(iter(v for k, v in with_token.items() if k.startswith("GIT_CONFIG_KEY")))
    asked = git.command(repository.path.parent, ("config", "--get", header), with_token)
    assert asked.startswith("Authorization: Basic ")


@contextmanager
def wanting_a_password() -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

        def do_GET(self) -> None:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="here"')
            self.send_header("Content-Length", "0")
            self.end_headers()

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/me/fork"
        server.shutdown()


@pytest.mark.parametrize("by", ["GIT_ASKPASS", "SSH_ASKPASS", "core.askPass"])
def test_nobody_is_asked_for_a_password(tmp_path, monkeypatch, progress, by):
    asked, program, settings = tmp_path / "asked", tmp_path / "ask", tmp_path / "gitconfig"
    program.write_text(f"#!/bin/sh\ntouch {asked}\necho x\n")
    program.chmod(0o755)
    settings.write_text(f"[core]\n\taskPass = {program}\n" if by == "core.askPass" else "")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(settings))
    if by != "core.askPass":
        monkeypatch.setenv(by, str(program))
    with wanting_a_password() as url, pytest.raises(RemoteUnavailableError):
        git.resolve(git.Remote("tiny", url), "master", progress)
    assert not asked.exists()


# --- The user's checkout


@pytest.fixture
def remote(file: Path, tmp_path: Path) -> Repository:
    """A repository of five commits whose pins.toml is pinned to the first of three."""
    made = Repository(tmp_path / "remote")
    (made.path / "pins.toml").write_bytes(file.read_bytes())
    (made.path / "dockerfiles" / "rendered").mkdir(parents=True)
    for number in range(5):
        made.commit(f"{number}", notes_md=f"{number}")
    return made


@pytest.fixture
def clone(remote: Repository, tmp_path: Path) -> Clone:
    remote.git("clone", "--quiet", str(remote.path), str(tmp_path / "clone"))
    return Clone(tmp_path / "clone")


@pytest.fixture
def threads() -> Iterator[Threads]:
    with github_api.serve() as api:
        api.on("/repos/me/images", Answer(body=page("me/images")))
        yield Threads(Github(api=api.url, token=TOKEN), "me/images")


def proposed(clone: Repository, threads: Threads) -> str:
    file = clone.path / "pins.toml"
    wanted = bump.Request(grouped=True, dry_run=True)
    move = bump.bump(file, wanted, None, Recorder())
    return propose.propose(file, move, "tiny-b3", threads, clone.path, Recorder())


HOOKS = [
    "pre-commit",
    "commit-msg",
    "post-checkout",
    "pre-push",
    "post-commit",
    "reference-transaction",
]


@pytest.fixture
def strict_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Their hooks refuse everything, their commits are signed by a program that fails."""
    ran, hooks, settings = tmp_path / "ran", tmp_path / "hooks", tmp_path / "gitconfig"
    hooks.mkdir()
    for name in HOOKS:
        (hooks / name).write_text(f"#!/bin/sh\necho {name} >> {ran}\nexit 1\n")
        (hooks / name).chmod(0o755)
    settings.write_text(
        f"[core]\n\thooksPath = {hooks}\n\tautocrlf = true\n\texcludesFile = {tmp_path}/ignore\n"
        "[commit]\n\tgpgSign = true\n[gpg]\n\tprogram = false\n[push]\n\tgpgSign = if-asked\n"
        "[fetch]\n\tprune = true\n[init]\n\tdefaultObjectFormat = sha256\n"
        "[rebase]\n\tautoSquash = true\n[user]\n\tuseConfigOnly = true\n"
    )
    (tmp_path / "ignore").write_text("*.json\n*.toml\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(settings))
    return ran


def test_a_full_clone_stays_full_and_as_it_was(clone, threads):
    before = snapshot(clone)
    assert proposed(clone, threads).startswith("opened ")
    assert clone.git("rev-list", "--count", "HEAD") == "5"
    assert clone.git("rev-parse", "--is-shallow-repository") == "false"
    changed = {name for name, content in snapshot(clone).items() if before.get(name) != content}
    assert changed <= {".git/index"}, "the status of this test itself refreshes the index"


def test_hooks_and_signing_are_for_the_users_own_commits(
    clone, remote, threads, strict_user, tmp_path, progress
):
    for name in HOOKS:
        hook = clone.path / ".git" / "hooks" / name
        hook.parent.mkdir(exist_ok=True)
        hook.write_bytes((tmp_path / "hooks" / name).read_bytes())
        hook.chmod(0o755)
    remote.git("config", "core.hooksPath", os.devnull)  # a remote's own hooks are no user's
    assert proposed(clone, threads).startswith("opened ")
    record = RecordBranch.of(Checkout(clone.path, Github()), "record", tmp_path / "record")
    record.take(progress)
    (tmp_path / "record" / "index.json").write_text("{}\n")
    record.give("Nights", progress)
    assert not strict_user.exists(), strict_user.read_text()
    assert remote.git("show", "record:index.json") == "{}"
    assert remote.git("rev-list", "--count", "master..builder/bump-tiny") == "1"
    assert "\r" not in remote.git("show", "builder/bump-tiny:pins.toml")


@pytest.mark.parametrize("how", ["relative", "insteadOf", "pushurl"])
def test_a_remote_is_reached_as_the_checkout_reaches_it(clone, remote, threads, how):
    if how == "relative":
        clone.git("remote", "set-url", "origin", "../remote")
    elif how == "insteadOf":
        clone.git("remote", "set-url", "origin", "https://host.invalid/me/images")
        clone.git("config", f"url.{remote.path}.insteadOf", "https://host.invalid/me/images")
    else:
        clone.git("config", "remote.origin.pushurl", str(remote.path))
        clone.git("remote", "set-url", "origin", str(remote.path / ".git"))
    assert proposed(clone, threads).startswith("opened ")
    assert remote.git("rev-list", "--count", "master..builder/bump-tiny") == "1"


def test_a_login_in_the_checkout_is_not_shown_beside_the_token(clone):
    """GitHub's own checkout leaves one there, and GitHub refuses a question with two."""
    header = "http.https://github.com/.extraheader"
    clone.git("config", header, "AUTHORIZATION: basic c29tZWJvZHk=")
    with_token, without = Checkout(clone.path, Github(token=TOKEN)), Checkout(clone.path, Github())
    assert header not in dict(with_token.reached())
    assert header in dict(without.reached())


def test_a_machine_without_git_is_told_so(repository, progress, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineError, match="git is not installed"):
        git.resolve(git.Remote("tiny", repository.url), "master", progress)


# --- A tree from disk


@pytest.mark.parametrize("kind", ["clone", "worktree", "submodule"])
def test_a_tree_from_disk_is_labelled_with_its_own_head(repository, file, tmp_path, progress, kind):
    own = repository.git("rev-parse", "HEAD~1")
    tree = tmp_path / "tree"
    if kind == "clone":
        repository.git("clone", "--quiet", repository.url, str(tree))
    elif kind == "worktree":
        repository.git("worktree", "add", "--quiet", "--detach", str(tree), own)
    else:
        above = Repository(tmp_path / "above")
        local = ["-c", "protocol.file.allow=always"]
        above.git(*local, "submodule", "--quiet", "add", repository.url, "fork")
        tree = above.path / "fork"
    Clone(tree).git("checkout", "--quiet", "--detach", own)
    assert (tree / ".git").is_file() == (kind != "clone")
    assert git.head(tree) == own
    with source.tree(pins.load(file), "tiny", None, tree, progress) as found:
        assert (found.commit, found.claimed) == (own, True)
    assert sorted(path.name for path in tree.glob(".git*")) == [".git"]


@pytest.mark.parametrize("broken", ["a gitfile to nowhere", "no HEAD", "no commit yet", "a link"])
def test_a_tree_whose_git_does_not_say_is_not_taken_for_the_pin(
    repository, file, tmp_path, progress, broken
):
    tree = tmp_path / "tree"
    repository.git("clone", "--quiet", repository.url, str(tree))
    if broken == "no HEAD":
        (tree / ".git" / "HEAD").unlink()
    elif broken == "no commit yet":
        (tree / ".git" / "HEAD").write_text("ref: refs/heads/unborn\n")
    else:
        (tree / ".git").rename(tmp_path / "moved")
        if broken == "a link":
            (tree / ".git").symlink_to(tmp_path / "nowhere")
        else:
            (tree / ".git").write_text(f"gitdir: {tmp_path / 'nowhere'}\n")
    everything = pins.load(file)
    with (
        pytest.raises(UsageError, match="does not say which commit"),
        source.tree(everything, "tiny", None, tree, progress),
    ):
        pass
    with source.tree(everything, "tiny", "a" * 40, tree, progress) as found:
        assert found.commit == "a" * 40


# --- A full disk


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file may grow beyond these bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_is_full_is_no_silent_remote_and_no_fault_of_the_commit(repository, progress):
    (repository.path / "large.bin").write_bytes(os.urandom(200_000))
    head = repository.commit("large")
    remote = git.Remote("tiny", repository.url)
    with room_for(100_000), pytest.raises(FileError) as caught:
        git.checkout(remote, head, progress)
    assert caught.value.exit_code == 2
    tree, _ = git.checkout(remote, head, progress)
    assert (tree / "large.bin").stat().st_size == 200_000


def test_what_fills_the_disk_does_not_stay_there_for_the_others(
    repository, tmp_path, monkeypatch, progress
):
    """git names no reason where a file of a checkout is written in part."""
    remote, head = git.Remote("tiny", repository.url), repository.git("rev-parse", "HEAD")
    tree, _ = git.checkout(remote, repository.git("rev-parse", "HEAD~1"), progress)
    said = (
        "error: unable to write file notes.md\nfatal: sha1 file 'x' write error. Out of diskspace"
    )
    saying(tmp_path, monkeypatch, said, word="checkout")
    with pytest.raises(FileError, match=r"git checkout: error: unable to write file"):
        git.checkout(remote, head, progress)
    assert not tree.exists()


def saying(
    folder: Path, monkeypatch: pytest.MonkeyPatch, said: str, *, word: str = "fetch"
) -> None:
    """A git on the path whose fetches, or another command, end with these words."""
    shim, words = folder / "bin" / "git", folder / "said"
    shim.parent.mkdir()
    words.write_text(f"{said}\n")
    real = shutil.which("git")
    shim.write_text(
        f'#!/bin/sh\ncase " $* " in *" {word} "*) cat {words} >&2; exit 128;; esac\n'
        f'exec {real} "$@"\n'
    )
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", f"{shim.parent}:{os.environ['PATH']}")


@pytest.mark.parametrize(
    "said",
    [
        "fatal: write error: No space left on device",
        "fatal: sha1 file '/x/objects/pack/tmp_pack_1' write error: No space left on device\n"
        "fatal: fetch-pack: invalid index-pack output",
        "error: unable to create file a/b.c: Disk quota exceeded",
        "fatal: cannot create directory at 'a': Read-only file system",
    ],
    ids=["no space", "no space in a pack", "quota", "read-only"],
)
def test_what_git_says_of_a_full_disk_is_known(repository, tmp_path, monkeypatch, progress, said):
    head = repository.git("rev-parse", "HEAD")
    saying(tmp_path, monkeypatch, said)
    with pytest.raises(FileError, match=r"git fetch: .*(No space|quota|Read-only)") as caught:
        git.checkout(git.Remote("tiny", repository.url), head, progress)
    assert "XDG_CACHE_HOME" in caught.value.hint


@pytest.mark.parametrize("whose", ["remote: fatal:", "fatal: remote error:"])
def test_a_remotes_own_full_disk_is_the_remotes(repository, tmp_path, monkeypatch, progress, whose):
    head = repository.git("rev-parse", "HEAD")
    saying(tmp_path, monkeypatch, f"{whose} write error: No space left on device")
    with pytest.raises(RemoteUnavailableError):
        git.checkout(git.Remote("tiny", repository.url), head, progress)


@pytest.fixture
def shown() -> Iterator[tuple[str, list[str | None], list[str]]]:
    """A server's address, the logins that it is shown, and what the list of processes has then."""
    logins: list[str | None] = []
    processes: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

        def do_GET(self) -> None:
            logins.append(self.headers.get("Authorization"))
            for file in Path("/proc").glob("[0-9]*/cmdline"):
                with suppress(OSError):
                    processes.append(file.read_bytes().replace(b"\0", b" ").decode())
            self.send_error(404)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_port}", logins, processes
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("key", ["remote.origin.url", "remote.other.url"])
def test_the_login_of_a_remotes_address_is_on_no_command_line(shown, repository, key):
    host, logins, processes = shown
    settings = [(key, f"http://me:s3%40cret@{host}/x.git")]
    with pytest.raises(CommandError) as caught:
        run_git(
            ["ls-remote", key.split(".")[1]],
            folder=repository.path,
            of_user=True,
            settings=settings,
        )
    assert logins[0] == f"Basic {base64.b64encode(b'me:s3@cret').decode()}"
    assert [one for one in processes if f"http://{host}/x.git" in one]
    assert not [one for one in [*processes, caught.value.why] if "cret@" in one]


def test_a_token_takes_the_place_of_the_login_in_the_address(shown, repository):
    host, logins, _ = shown
    token = {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"http.http://{host}/.extraHeader",
        "GIT_CONFIG_VALUE_0": "Authorization: Basic token",
    }
    with pytest.raises(CommandError):
        run_git(
            ["ls-remote", "origin"],
            folder=repository.path,
            of_user=True,
            settings=[("remote.origin.url", f"http://me:s3cret@{host}/x.git")],
            environment=token,
        )
    assert set(logins) == {"Basic token"}
