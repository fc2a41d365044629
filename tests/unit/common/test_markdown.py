"""Strangers' words in Markdown stay words, by the program that GitHub shows Markdown with."""

import re

import cmarkgfm
import pytest

from builder.common import markdown

HOSTILE = [
    "[a](https://evil.example/x)",
    "![a](https://evil.example/x.png)",
    "<img src=https://evil.example/x.png>",
    "<https://evil.example>",
    "https://evil.example/x",
    "see http://evil.example.",
    "www.evil.example",
    "WWW.evil.example",
    "me@evil.example",
    "@octocat look",
    "fixes #12 and octo/cat#12 and GH-12",
    r"\[a\](https://evil.example) \@octocat",
    "` @octocat ` [a](https://evil.example)",
    "``` @octocat",
    "a | b | [c](https://evil.example)",
    "a\n\n# title\n\n- [x](https://evil.example) @octocat",
    "a\r\r[x](https://evil.example)",
    "[a]: https://evil.example\n\n[a]",
    "&lt;img&gt; &#64;octocat &#91;a](https://evil.example)",
    "~~struck~~ **bold** _emphasis_ $x$",
    "~~~\n@octocat",
    "</code></pre><a href=https://evil.example>x</a>",
    "<!-- --> @octocat <!--",
    "ftp://evil.example xmpp:me@evil.example mailto:me@evil.example",
    "\u202e\x1b[2J@octocat",
]

_LINK = re.compile(r"<(a|img|script|h\d|li|del|strong|em)\b")
# GitHub looks for these in the page that it has made of the Markdown, but not in code.
_AFTERWARDS = re.compile(r"@\w|(?<![&\w])#\d|\bGH-\d", re.IGNORECASE)


def shown(text: str) -> str:
    return cmarkgfm.github_flavored_markdown_to_html(text)


def links(text: str) -> list[str]:
    """What would lead somewhere, load something, call somebody or look like ours."""
    page = shown(text)
    prose = re.sub(r"<(code|pre)\b.*?</\1>", "", page, flags=re.DOTALL)
    return [*(found[0] for found in _LINK.finditer(page)), *_AFTERWARDS.findall(prose)]


def test_the_program_would_make_links_of_most_of_them():
    assert sum(bool(links(one)) for one in HOSTILE) >= len(HOSTILE) - 6


@pytest.mark.parametrize("words", HOSTILE)
def test_words_lead_nowhere(words):
    assert links(f"before {markdown.text(words)} after") == []
    assert links(markdown.text(words)) == []


@pytest.mark.parametrize("words", HOSTILE)
def test_code_leads_nowhere(words):
    assert links(f"before {markdown.code(words)} after") == []


@pytest.mark.parametrize("words", HOSTILE)
def test_a_block_leads_nowhere(words):
    assert links(f"before\n\n{markdown.block(words)}\n\nafter") == []


@pytest.mark.parametrize("words", HOSTILE)
def test_a_table_keeps_its_cells(words):
    page = shown(f"| a | b |\n|---|---|\n| {markdown.text(words)} | end |\n")
    assert page.count("<td>") == 2
    assert "<td>end</td>" in page


def test_words_look_as_they_were():
    page = shown(markdown.text("max_days: 3 < 4 & a|b *x* #12 @me https://a.b"))
    assert page.replace("\u200b", "") == (
        "<p>max_days: 3 &lt; 4 &amp; a|b *x* #12 @me https://a.b</p>\n"
    )


def test_a_commit_that_is_none_is_no_link():
    assert (
        markdown.link("a" * 40, "https://host/x")
        == f"[`{'a' * 9}`](https://host/x/commit/{'a' * 40})"
    )
    assert links(markdown.link("](x) @octocat", "https://host/x")) == []


@pytest.mark.parametrize(
    "address", ["javascript:alert(1)", "https://a/b) ![x](https://c", "http://a"]
)
def test_only_a_page_is_linked(address):
    assert links(markdown.page("the job", address)) == []
    assert "href" in shown(markdown.page("the job", "https://github.com/me/x/actions/runs/1"))
