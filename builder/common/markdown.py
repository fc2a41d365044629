"""Markdown for pages of a git host, out of what strangers wrote."""

import re

from builder.common.printable import printable, printable_lines

_MARKUP = re.compile(r"[\\|*_`\[\]!~]")
# What GitHub makes links of without any markup: mentions and mail, issues, addresses. It looks for
# them in the text as it is shown, so that a backslash helps nothing.
_LINKS = re.compile(r"@|#(?=\d)|\b(?:GH-)(?=\d)|:(?=//)|\bwww(?=\.)", re.IGNORECASE)
_NOTHING = "&#8203;"
"""A space without width."""
_PAGE = re.compile(r"https://[\w.-]+(:\d+)?(/[\w./%~+-]*)?")
_HEX = re.compile(r"[0-9a-f]{7,64}")


def text(words: str) -> str:
    """Words in one line, no markup, link, image or mention in them, whoever wrote them."""
    shown = printable(" ".join(words.split()))
    shown = shown.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _LINKS.sub(rf"\g<0>{_NOTHING}", _MARKUP.sub(r"\\\g<0>", shown))


def code(words: str) -> str:
    """Code in one line is neither markup nor a mention, whoever wrote it."""
    shown = printable(" ".join(words.splitlines()).strip()).replace("`", "'")
    return f"`{shown}`" if shown else "–"


def block(words: str) -> str:
    """A block of code, whatever is in it."""
    shown = printable_lines(words)
    longest = max((len(run) for run in re.findall(r"`+", shown)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{shown}\n{fence}"


def link(commit: str, web: str | None) -> str:
    """A commit by its first nine digits, linked where its repository has pages."""
    short = code(commit[:9])
    return f"[{short}]({web}/commit/{commit})" if web and _HEX.fullmatch(commit) else short


def page(words: str, address: str) -> str:
    """A link to a page that is reached by https; the words alone where the address is no such."""
    return f"[{text(words)}]({address})" if _PAGE.fullmatch(address) else text(words)


def web(url: str) -> str | None:
    """The page of a repository on a host that is reached by https, as GitHub lays it out."""
    return url.rstrip("/").removesuffix(".git") if url.startswith("https://") else None
