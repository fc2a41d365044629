"""Which built-in tools the installed Agent SDK offers a model, against the list that bans them.

    from builder.agents.tools import banned

    ClaudeAgentOptions(disallowed_tools=banned())
    ClaudeAgentOptions(disallowed_tools=banned(keep=["Read", "Grep"]))

The SDK is asked, not its documentation: it talks to a recording server on the loopback, and the
request that it sends has the tools in it. One request does not tell all of them: some are loaded
by name later (tool search), some come with a permission callback, and some only when others go, as
Glob and Grep do without Bash. So it is asked in two ways, and what it offers is taken away until
nothing is left.
"""

import asyncio
import dataclasses
import importlib.metadata
import json
import tempfile
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from builder.agents import environment as client_env
from builder.agents.recording_server import recording
from builder.agents.tools_list import ALIASES, BESIDES, OFFERED, PLACEHOLDER, SDK
from builder.common.errors import UsageError
from builder.common.progress import Progress
from builder.common.suggest import suggestion

if TYPE_CHECKING:
    from claude_agent_sdk import PermissionResultDeny

PACKAGE = "claude-agent-sdk"

_ROUNDS = 8
_ANSWER_S = 120.0
_MODEL = "local-haiku"


@dataclass(frozen=True, slots=True)
class ToolsReport:
    """What the SDK offers. `sdk` is its version.

    `new`: offered and not on the list. `gone`: on the list as offered, and not offered any more.
    `left`: offered although the list is applied. All are sorted.
    """

    sdk: str
    offered: list[str]
    new: list[str]
    gone: list[str]
    left: list[str]

    @property
    def passed(self) -> bool:
        """The list says what is offered, and with it nothing is."""
        return not (self.new or self.gone or self.left)


def banned(keep: Iterable[str] = ()) -> list[str]:
    """The names for `disallowed_tools`, sorted, without those to keep.

    Raises UsageError with the nearest name for one that is not on the list.
    """
    names = OFFERED | BESIDES | ALIASES.keys()
    kept = set(keep)
    for name in sorted(kept - names):
        raise UsageError(f"no built-in tool is called {name!r}", hint=suggestion(name, names))
    for alias, name in ALIASES.items():
        if {alias, name} & kept:
            kept |= {alias, name}
    return sorted(names - kept)


def report(progress: Progress) -> ToolsReport:
    """Ask the installed SDK. Takes eight runs of its program, a second or so each.

    Raises UsageError when the SDK is not installed, or its program asks the server nothing.
    """
    version = _version()
    found: set[str] = set()
    for number in range(1, _ROUNDS + 1):
        progress.step(f"ask {PACKAGE} {version} what it offers, round {number}")
        offered = asyncio.run(_offered(sorted(found)))
        if offered <= found:
            break
        found |= offered
    progress.step("ask again with the list applied")
    left = asyncio.run(_offered(banned()))
    return ToolsReport(
        sdk=version,
        offered=sorted(found),
        new=sorted(found - OFFERED),
        gone=sorted(OFFERED - found),
        left=sorted(left),
    )


def to_json(found: ToolsReport) -> str:
    """`schema` 1, `sdk`, `list` (the version that the list was read from), `passed`, the names."""
    page = {"schema": 1, "list": SDK, "passed": found.passed, **dataclasses.asdict(found)}
    return json.dumps(page, indent=2)


def to_text(found: ToolsReport) -> str:
    """The verdict, and the names both ways."""
    lines = [f"{PACKAGE} {found.sdk} offers {len(found.offered)} built-in tools"]
    lines += [f"  {name}" for name in found.offered]
    if found.passed:
        lines.append("the list bans them all: with it none is offered")
    lines += [f"not on the list: {name}" for name in found.new]
    lines += [f"on the list, offered no more: {name}" for name in found.gone]
    lines += [f"offered although the list is applied: {name}" for name in found.left]
    return "\n".join(lines)


def _version() -> str:
    try:
        return importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError as error:
        raise UsageError(
            "the Claude Agent SDK is not installed beside builder",
            why="what it offers is read from the request that it sends",
            hint=f"`pip install {PACKAGE}` (170 MB, 380 MB unpacked)",
        ) from error


async def _offered(without: list[str]) -> set[str]:
    """The names that are offered with these disallowed.

    To a program as it comes, and to one that names all at once and may ask its user.
    """
    both = await asyncio.gather(_ask(without, plain=True), _ask(without, plain=False))
    return both[0] | both[1]


async def _ask(without: list[str], *, plain: bool) -> set[str]:
    from claude_agent_sdk import ClaudeAgentOptions, ClaudeSDKError, query

    said: list[str] = []
    failure = ""
    with (
        recording() as server,
        tempfile.TemporaryDirectory(prefix="builder-tools-") as folder,
    ):
        # No settings, servers or memory of this user: the built-in tools alone.
        options = ClaudeAgentOptions(
            env=_environment(server.url, folder, search=plain),
            cwd=folder,
            setting_sources=[],
            allowed_tools=[],
            disallowed_tools=without,
            max_turns=1,
            can_use_tool=None if plain else _deny,
            stderr=said.append,
        )
        try:
            async with asyncio.timeout(_ANSWER_S):
                async for _ in query(prompt=_prompt(), options=options):
                    pass
        except (ClaudeSDKError, TimeoutError) as error:
            failure = f"{type(error).__name__}: {error}"
        if not server.messages:
            raise UsageError(
                f"the program of {PACKAGE} asked the server nothing",
                why="\n".join([failure, *said[-3:]]).strip(),
                hint=f"`pip install --force-reinstall {PACKAGE}`",
            )
        bodies = [one.body for one in server.messages]
        names = {str(tool["name"]) for body in bodies for tool in body.get("tools") or []}
        return names - {PLACEHOLDER}


async def _prompt() -> AsyncIterator[dict[str, Any]]:
    yield {"type": "user", "message": {"role": "user", "content": "hello"}}


async def _deny(*_: object) -> "PermissionResultDeny":
    from claude_agent_sdk import PermissionResultDeny

    return PermissionResultDeny(message="nobody is asked here")


def _environment(url: str, folder: str, *, search: bool) -> dict[str, str]:
    """What the SDK lays over os.environ: all leads to our server, and no secret goes along."""
    values = client_env.routed([client_env.Server("haiku", url, _MODEL)])
    return {
        **dict.fromkeys(client_env.ASIDE, ""),
        **values,
        "CLAUDE_CONFIG_DIR": folder,
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
        "ENABLE_TOOL_SEARCH": "true" if search else "false",
    }
