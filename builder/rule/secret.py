"""What is in the image and nobody else may know."""

import re
from collections.abc import Iterator

from builder.probe.finding import Finding
from builder.rule.subject import Subject, verdict_on

SECRETS = "secrets"

# A search for plain bytes first: an expression over every byte of an image takes seconds.
_CONTENTS: dict[str, tuple[bytes, re.Pattern[bytes]]] = {
    "a private key": (
        b"PRIVATE KEY-----",
        # A program that reads keys holds the first line too; only a key goes on.
        re.compile(
            rb"-----BEGIN [A-Z ]{0,20}PRIVATE KEY-----\s+([\w-]+: [^\n]{0,80}\s+){0,3}"
            rb"[A-Za-z0-9+/=\s]{64}"
        ),
    ),
    "an AWS access key": (b"AKIA", re.compile(rb"(?<![\w+/])AKIA[A-Z0-9]{16}(?![\w+/])")),
    "a Google API key": (b"AIza", re.compile(rb"(?<![\w+/])AIza[\w-]{35}(?![\w-])", re.ASCII)),
    "a GitHub token": (b"ghp_", re.compile(rb"(?<!\w)ghp_[A-Za-z0-9]{36}(?!\w)")),
    "a GitHub workflow's token": (b"ghs_", re.compile(rb"(?<!\w)ghs_[A-Za-z0-9]{36}(?!\w)")),
    "a GitHub fine-grained token": (
        b"github_pat_",
        re.compile(rb"(?<!\w)github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}(?!\w)"),
    ),
    "a GitHub app's token": (b"gh", re.compile(rb"(?<!\w)gh[ou]_[A-Za-z0-9]{36}(?!\w)")),
    "an npm token": (b"npm_", re.compile(rb"(?<!\w)npm_[A-Za-z0-9]{36}(?!\w)")),
    "a GitLab token": (
        b"glpat-",
        re.compile(rb"(?<![\w-])glpat-(?=[\w-]{0,60}\d)[\w-]{20,60}(?![\w-])", re.ASCII),
    ),
    "a Slack token": (
        b"xox",
        re.compile(rb"(?<!\w)xox[abeprs]-\d{6,20}-[A-Za-z0-9-]{10,200}(?![\w-])"),
    ),
    "a Hugging Face token": (b"hf_", re.compile(rb"(?<!\w)hf_[A-Za-z0-9]{30,80}(?!\w)")),
    "an API key": (
        b"sk-",
        # A digit and a capital: words joined by dashes have neither.
        re.compile(
            rb"(?<![\w-])sk-(?=[\w-]{0,200}\d)(?=[\w-]{0,200}[A-Z])[\w-]{20,200}(?![\w-])", re.ASCII
        ),
    ),
}

_NAMES = re.compile(
    r".*/(\.git-credentials|[._]netrc|id_(rsa|dsa|ecdsa|ed25519)|\.dockercfg|\.pypirc"
    r"|\.docker/config\.json|\.aws/credentials|\.kube/config|\.config/gh/hosts\.yml"
    r"|(\.cache/|\.)huggingface/token)"
)

_ASSIGNED = re.compile(
    r"\b([A-Z0-9_]*(?:TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|ACCESS_KEY|CREDENTIALS?)[A-Z0-9_]*)"
    r"=[\"']?([^\s\"';]*)",
    re.IGNORECASE,
)
_UNSET = re.compile(r"|\$.*|true|false|yes|no|on|off|none|null", re.IGNORECASE)
"""Nothing, a variable, a switch: no secret under any name."""
_NAMES_A_PLACE = re.compile(r".*_(PATH|FILE|DIR)", re.IGNORECASE)
_NAMES_A_NUMBER = re.compile(r".*TOKEN(S|IZ|_(BIAS|BUDGET|COUNT|ID|LIMIT|RATIO)).*", re.IGNORECASE)
_BEARER = re.compile(r"\bauthorization: *(?:bearer|basic) +[\w.~+/=-]{8,}", re.IGNORECASE)
_IN_ADDRESS = re.compile(r"\w://[^\s/:@$]*:[^\s/@$]+@")


def kinds(window: bytes) -> frozenset[str]:
    """The kinds of secret that some bytes hold."""
    import stringzilla

    return frozenset(
        kind
        for kind, (needle, pattern) in _CONTENTS.items()
        if stringzilla.find(window, needle) >= 0 and pattern.search(window)
    )


def secrets(subject: Subject) -> Finding:
    """Whether a layer, also under a later one, the history, the environment or a label has one.

    The finding says where and of which kind, never what.
    """
    files = sum(len(layer.files) for layer in subject.layers)
    faults = [*_in_layers(subject), *_in_config(subject)]
    return verdict_on(
        SECRETS,
        faults,
        expected="nothing like a secret in any layer, the history or the configuration",
        good=f"none in {files} files of {len(subject.layers)} layers",
    )


def _in_layers(subject: Subject) -> Iterator[str]:
    for number, layer in enumerate(subject.layers, start=1):
        for file in layer.files:
            found = sorted(file.secrets)
            if file.kind == "file" and _NAMES.fullmatch(file.path):
                found.append("a file for secrets")
            # The same object: a later layer would have put another in its place.
            hidden = "" if subject.tree.files.get(file.path) is file else ", hidden by a later one"
            yield from (f"{what}: {file.path} (layer {number}{hidden})" for what in found)


def _in_config(subject: Subject) -> Iterator[str]:
    config = subject.config
    labels = [f"{name}={value}" for name, value in config.labels.items()]
    places = {"the history": config.history, "the environment": config.environment}
    for place, texts in {**places, "a label": labels}.items():
        for text in texts:
            yield from (f"{what}: in {place}" for what in sorted(kinds(text.encode())))
            yield from (
                f"a value of {name}: in {place}"
                for name, value in _ASSIGNED.findall(text)
                if not _is_setting(name, value)
            )
            if _BEARER.search(text):
                yield f"a login in a header: in {place}"
            if _IN_ADDRESS.search(text):
                yield f"a password in an address: in {place}"


def _is_setting(name: str, value: str) -> bool:
    """Whether a value says how a program behaves, under a name that sounds like a secret's.

    By name and value together: a number is a limit in MAX_TOKENS and a password in PASSWORD.
    """
    if _UNSET.fullmatch(value):
        return True
    if _NAMES_A_PLACE.fullmatch(name):
        return value.startswith(("/", "~/", "./"))
    return bool(_NAMES_A_NUMBER.fullmatch(name) and re.fullmatch(r"-?\d+(\.\d+)?", value))
