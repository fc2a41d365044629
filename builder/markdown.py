"""Markdown for pages of a git host, out of what strangers wrote."""

import re


def code(text: str) -> str:
    """Code is neither markup nor a mention, whoever wrote it."""
    plain = text.replace("`", "'").strip()
    return f"`{plain}`"


def cell(text: str) -> str:
    """A cell of a table, in one line."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def block(text: str) -> str:
    """A block of code, whatever is in it."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def link(commit: str, web: str | None) -> str:
    """A commit by its first nine digits, linked where its repository has pages."""
    short = f"`{commit[:9]}`"
    return f"[{short}]({web}/commit/{commit})" if web else short


def web(url: str) -> str | None:
    """The page of a repository on a host that is reached by https, as GitHub lays it out."""
    return url.rstrip("/").removesuffix(".git") if url.startswith("https://") else None
