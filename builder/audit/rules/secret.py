"""What is in the image and nobody else may know."""

import re
from collections.abc import Iterable, Iterator
from urllib.parse import unquote

from builder.audit.rules.subject import Subject, verdict_on
from builder.image.tree import File
from builder.model.finding import Finding

SECRETS = "secrets"

_KEY = "a private key"

_LONGEST = 4096
"""Bytes: more than any of the patterns below matches."""

# Words that one of must be there: an expression over every byte of an image takes seconds.
_CONTENTS: dict[str, tuple[tuple[bytes, ...], re.Pattern[bytes]]] = {
    _KEY: (
        (b"PRIVATE KEY-----", b"PRIVATE KEY BLOCK-----"),
        # A program that reads keys holds the first line too; only a key goes on.
        re.compile(
            rb"-----BEGIN [A-Z ]{0,20}PRIVATE KEY( BLOCK)?-----(?:\s|\\n)+"
            rb"([\w-]+: [^\n]{0,80}\s+){0,3}[A-Za-z0-9+/=\s]{64}"
        ),
    ),
    "an AWS access key": ((b"AKIA",), re.compile(rb"(?<![\w+/])AKIA[A-Z0-9]{16}(?![\w+/])")),
    "an AWS session's access key": (
        (b"ASIA",),
        re.compile(rb"(?<![\w+/])ASIA(?=[A-Z]{0,15}\d)[A-Z0-9]{16}(?![\w+/])"),
    ),
    "a Google API key": ((b"AIza",), re.compile(rb"(?<![\w+/])AIza[\w-]{35}(?![\w-])", re.ASCII)),
    "a Google login's token": (
        (b"ya29.",),
        re.compile(rb"(?<![\w.])ya29\.(?=[\w-]{0,200}\d)[\w-]{20,500}", re.ASCII),
    ),
    "a Google app's secret": (
        (b"GOCSPX-",),
        re.compile(rb"(?<![\w-])GOCSPX-[\w-]{28}(?![\w-])", re.ASCII),
    ),
    "a GitHub token": ((b"ghp_",), re.compile(rb"(?<!\w)ghp_[A-Za-z0-9]{36}(?!\w)")),
    "a GitHub workflow's token": ((b"ghs_",), re.compile(rb"(?<!\w)ghs_[A-Za-z0-9]{36}(?!\w)")),
    "a GitHub fine-grained token": (
        (b"github_pat_",),
        re.compile(rb"(?<!\w)github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}(?!\w)"),
    ),
    "a GitHub app's token": (
        (b"gho_", b"ghr_", b"ghu_"),
        re.compile(rb"(?<!\w)gh[oru]_[A-Za-z0-9]{36,76}(?!\w)"),
    ),
    "an npm token": ((b"npm_",), re.compile(rb"(?<!\w)npm_[A-Za-z0-9]{36}(?!\w)")),
    "a PyPI token": ((b"pypi-AgE",), re.compile(rb"(?<![\w-])pypi-AgE[\w-]{50,300}", re.ASCII)),
    "a Docker Hub token": (
        (b"dckr_pat_", b"dckr_oat_"),
        re.compile(rb"(?<!\w)dckr_[po]at_[\w-]{27,40}(?![\w-])", re.ASCII),
    ),
    "a GitLab token": (
        (b"glpat-", b"gldt-", b"glrt-", b"glptt-", b"glcbt-"),
        re.compile(
            rb"(?<![\w-])gl(pat|dt|rt|ptt|cbt)-(?=[\w-]{0,60}\d)[\w-]{20,60}(?![\w-])", re.ASCII
        ),
    ),
    "a Slack token": (
        (b"xox", b"xapp-"),
        re.compile(
            rb"(?<!\w)(xox[abeprs]-\d{6,20}-|xapp-\d-[A-Z0-9]{6,20}-)[A-Za-z0-9-]{10,200}(?![\w-])"
        ),
    ),
    "a Slack webhook": (
        (b"hooks.slack.com/services/",),
        re.compile(rb"hooks\.slack\.com/services/T\w{6,20}/B\w{6,20}/[A-Za-z0-9]{20,60}", re.ASCII),
    ),
    "a Stripe key": (
        (b"sk_live_", b"rk_live_"),
        re.compile(rb"(?<!\w)[rs]k_live_[A-Za-z0-9]{20,200}(?!\w)"),
    ),
    "a Groq API key": ((b"gsk_",), re.compile(rb"(?<!\w)gsk_[A-Za-z0-9]{52}(?!\w)")),
    "a Hugging Face token": ((b"hf_",), re.compile(rb"(?<!\w)hf_[A-Za-z0-9]{30,80}(?!\w)")),
    "an NVIDIA API key": ((b"nvapi-",), re.compile(rb"(?<![\w-])nvapi-[\w-]{60,80}", re.ASCII)),
    "a Replicate token": ((b"r8_",), re.compile(rb"(?<!\w)r8_[A-Za-z0-9]{37}(?!\w)")),
    "a SendGrid key": (
        (b"SG.",),
        re.compile(rb"(?<![\w.-])SG\.[\w-]{22}\.[\w-]{43}(?![\w-])", re.ASCII),
    ),
    "a JSON web token": (
        (b".eyJ",),
        re.compile(rb"(?<![\w-])eyJ[\w-]{10,1000}\.eyJ[\w-]{10,2000}\.[\w-]{16,700}", re.ASCII),
    ),
    "an xAI API key": ((b"xai-",), re.compile(rb"(?<![\w-])xai-[A-Za-z0-9]{60,100}(?!\w)")),
    "a Perplexity API key": ((b"pplx-",), re.compile(rb"(?<![\w-])pplx-[A-Za-z0-9]{48,60}(?!\w)")),
    "a Weights & Biases key": (
        (b"wandb_v1_",),
        re.compile(rb"(?<!\w)wandb_v1_[\w-]{30,120}", re.ASCII),
    ),
    "a DigitalOcean token": (
        (b"_v1_",),
        re.compile(rb"(?<!\w)do[opr]_v1_[a-f0-9]{64}(?!\w)"),
    ),
    "a Databricks token": ((b"dapi",), re.compile(rb"(?<!\w)dapi[a-f0-9]{32}(-\d)?(?!\w)")),
    "a Vault token": ((b"hvs.", b"hvb."), re.compile(rb"(?<!\w)hv[sb]\.[\w-]{24,200}", re.ASCII)),
    "an API key": (
        (b"sk-",),
        # A digit and a capital: words joined by dashes have neither.
        re.compile(
            rb"(?<![\w-])sk-(?=[\w-]{0,200}\d)(?=[\w-]{0,200}[A-Z])[\w-]{20,200}(?![\w-])", re.ASCII
        ),
    ),
}

_NAMES = re.compile(
    r".*/(\.git-credentials|[._]netrc|id_(rsa|dsa|ecdsa|ed25519)|\.dockercfg|\.pypirc"
    r"|\.aws/credentials|\.config/gh/hosts\.yml|(\.cache/|\.)huggingface/token)"
)
_MAY_HOLD_LOGINS = re.compile(
    r".*/(etc/apt/(sources\.list|auth\.conf|apt\.conf)(\.d/.*)?|etc/yum\.repos\.d/.*"
    r"|\.?pip\.(conf|ini)|pip/pip\.conf|uv\.toml|\.condarc|\.?npmrc|\.yarnrc(\.yml)?"
    r"|\.docker/config\.json|containers/auth\.json|\.kube/config|\.?gitconfig|\.git/config"
    r"|\.?wgetrc|\.?curlrc|\.cargo/credentials(\.toml)?|\.m2/settings\.xml"
    r"|\.env(\..*)?|etc/environment|\.\w*_history)"
)
"""Settings of programs that log in somewhere: good images have some, without a login."""

_STRONG = (
    r"TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|PASSCODE|CREDENTIALS?"
    r"|(?:API|ACCESS|PRIVATE|ACCOUNT|AUTH)_?KEY"
)
"""What makes a name a secret's, wherever in it."""
_OF_KEY = r"(?:_(?:\d+|V\d+|PROD|DEV|TEST|STAGING|BASE64|B64|PEM|VALUE|DATA))?"
_WRITTEN_BY_HAND = re.compile(r"/(etc|home|opt|root|run|srv|tmp|var)/")
"""Where addresses in text are somebody's own; programs under /usr bring examples of logins."""

_ASSIGNED = re.compile(
    rf"\b([A-Z0-9_]*(?:{_STRONG})[A-Z0-9_]*|(?:[A-Z0-9_]*_)?(?:PASS|PAT)|(?:SSH|DB)PASS|BASIC_?AUTH"
    rf"|[A-Z0-9_]+_PWD|[A-Z0-9_]*_KEY{_OF_KEY}|(?-i:KEY{_OF_KEY}))"
    r"=[\"']?([^\s\"';]*)",
    re.IGNORECASE,
)
# NAME = value, "name": "value", <name>value, and `password value` as netrc and auth.conf have it.
_WRITTEN = re.compile(
    r"(?<![\w-])([\w-]{0,60}(?:token|secret|password|passwd|passphrase|api_?key|access_?key|auth|key-data))"
    r"(?:[\"']?[ \t]*[=:][ \t]*[\"']?|>|(?<=password)\s+)([^\s\"',;<{\[]+)",
    re.IGNORECASE,
)
_COMMENT = re.compile(r"^[ \t]*(#|;|//[ \t]).*$", re.MULTILINE)
_OPTION = re.compile(
    r"--([a-z-]*(?:password|passwd|token|api-key))[\"']?[\s=]+[\"']?([^\s\"',;-][^\s\"',;]*)"
)
_UNSET = re.compile(r"|[01]|true|false|yes|no|on|off|none|null", re.IGNORECASE)
"""Nothing, a switch: no secret under any name."""
_VARIABLE = re.compile(r"\$(?:[({].*|(?:[A-Z_][A-Z0-9_]*|[a-z_]+\d*|[\d@*#?!])(?!\w).*)?|`.*")
"""What a shell puts something else in the place of; nobody calls a variable $up3rs3cret."""
_PLACEHOLDER = re.compile(r"\$(?:[({].*|[A-Z_][A-Z0-9_]*)?")
"""The same where no shell reads it."""
_AMOUNT = re.compile(
    r"[-+]?\d[\d_,]*(\.\d+)?(e\d+|%|[a-z]{1,2}|[kmg]ib|min|(sec|minute|hour|day|week|month|year)s?)?"
    r"|auto|default|unlimited|inf(inity)?|max|min|never",
    re.IGNORECASE,
)
_PLACE = re.compile(r"(/|~/|\./).*")
_ADDRESS = re.compile(
    r"https?://[^\s@?]*|[\w.-]+\.[a-z]{2,}(:\d+)?|localhost(:\d+)?|\d+", re.IGNORECASE
)
_NAMES_A_PLACE = re.compile(r".*_(PATH|FILE|DIR|FOLDER)", re.IGNORECASE)
_NAMES_AN_ADDRESS = re.compile(r".*_(URL|URI|ENDPOINT|HOST|SERVER|PORT)", re.IGNORECASE)
_NAMES_A_NUMBER = re.compile(
    r".*TOKEN(S|IZ|_(BIAS|BUDGET|COUNT|ID|LIMIT|RATIO)).*|(.*_)?(MAX|MIN|NUM)_.*"
    r"|.*_(ROTATION|TTL|EXPIR\w+|LIFETIME|TIMEOUT|LEN|LENGTH|SIZE|LIMIT|COUNT|MIN|MAX|INTERVAL|AGE"
    r"|DAYS|HOURS|MINUTES|SECONDS|BITS|ROUNDS|ITERATIONS|COST|VALIDITY|DURATION|PERIOD|RETRIES)",
    re.IGNORECASE,
)
_NAMES_A_KIND = re.compile(
    r".*_(TYPE|HEADER|NAME|MODE|KIND|MANAGER|PROVIDER|BACKEND|STORE|ENGINE|ALG|ALGORITHM|FORMAT"
    r"|VERSION|REGION|POLICY|SCOPES?|AUDIENCE|ISSUER|METHOD|STRATEGY|ENABLED|DISABLED|REQUIRED)",
    re.IGNORECASE,
)
_NAMES_A_MODELS = re.compile(
    r".*(TOKENI[SZ]|(?<![A-Z0-9])(BOS|EOS|PAD|UNK|SEP|CLS|MASK|SPECIAL)_TOKEN).*", re.IGNORECASE
)
"""A model's own tokens, and what makes them: words of no use to a thief."""
_NAMES_ANOTHER_KEY = re.compile(
    r"(.*_)?(PUB|PUBLIC|PRIMARY|FOREIGN|PARTITION|SORT|CACHE|LABEL|GROUP|INDEX|HOT|META|JSON|MAP"
    r"|DICT|HEADER|HOST|ROUTING|SHORTCUT)_KEY",
    re.IGNORECASE,
)
"""Keys that open nothing."""
_NAMES_A_PGP_KEY = re.compile(r"(.*_)?(GPG|PGP)_KEY", re.IGNORECASE)
_FINGERPRINT = re.compile(r"(0x)?([0-9A-F]{8}){1,2}|[0-9A-F]{40}", re.IGNORECASE)
_KEYS_FILE = re.compile(r"(/|~/|\./|https://)[^\s@?]*\.(gpg|asc|pem|key|pub|crt)", re.IGNORECASE)
_ANY = re.compile(r".*")
_SETTINGS = (
    (_NAMES_A_KIND, _ANY),
    (_NAMES_A_MODELS, _ANY),
    (_NAMES_ANOTHER_KEY, _ANY),
    (_NAMES_A_PLACE, _PLACE),
    (_NAMES_AN_ADDRESS, _ADDRESS),
    (_NAMES_A_NUMBER, _AMOUNT),
    (_NAMES_A_PGP_KEY, _FINGERPRINT),
    (re.compile(rf"(?!.*({_STRONG})).*_KEY", re.IGNORECASE), _KEYS_FILE),
)
"""Which values are settings under which names."""
_BEARER = re.compile(
    r"\b(?:authorization: *(?:bearer|basic|token) +"
    r"|(?:x-(?:goog-)?api-key|(?:private|job)-token): *)[\w.~+/=-]{8,}",
    re.IGNORECASE,
)
_IN_QUERY = re.compile(
    r"[?&](?:key|sig|signature|x-(?:amz|goog)-signature)=[\w.~+/%=-]{8,}", re.IGNORECASE
)
_IN_ADDRESS = re.compile(r"\w://[^\s/:@$]*:[^\s/@$]+@")
_OF_CURL = re.compile(r"\bcurl\b[^\n;|&]{0,300}?\s(-u|--user)[ =]?[\"']?[^\s\"':$]+:[^\s\"'$]+")
_OF_LOGIN = re.compile(
    r"\b(?:docker|podman|buildah|skopeo|helm|oras|crane)\b[^\n;|&]{0,100}?\blogin\b[^\n;|&]{0,300}?"
    r"\s(?:-p[ =]?|--password[ =])[\"']?[^\s\"'$-]"
    r"|\bsshpass\s+-p ?[\"']?[^\s\"'$]"
)
_USER_OF_ADDRESS = re.compile(r"\bhttps?://([^\s/:@$?#\"'<>]+)@", re.IGNORECASE)
_USER = re.compile(r"(?!.*token)[a-z][a-z._@-]{0,30}", re.IGNORECASE)
"""The name of somebody, or of a mailbox: who gives a token alone in an address has digits in it."""


def kinds(window: bytes) -> frozenset[str]:
    """The kinds of secret that some bytes hold."""
    return frozenset(
        kind
        for kind, (needles, pattern) in _CONTENTS.items()
        if any(_holds(window, needle, pattern) for needle in needles)
    )


def _holds(window: bytes, needle: bytes, pattern: re.Pattern[bytes]) -> bool:
    """Whether a pattern is found around a needle: an expression over all bytes takes far longer."""
    import stringzilla

    at = stringzilla.find(window, needle)
    while at >= 0:
        end = at + 2 * _LONGEST
        if pattern.search(window, max(0, at - _LONGEST), end):
            return True
        at = stringzilla.find(window, needle, end - _LONGEST)
    return False


def in_file(path: str, window: bytes) -> frozenset[str]:
    """The kinds of secret that a part of the file at this path holds."""
    found = kinds(window)
    if not _MAY_HOLD_LOGINS.fullmatch(path):
        if b"://" not in window or b"\0" in window or not _WRITTEN_BY_HAND.match(path):
            return found
        text = _COMMENT.sub("", window.decode(errors="replace"))
        return found | set(_addresses(text))
    text = _COMMENT.sub("", window.decode(errors="replace"))
    written = {*_values(_WRITTEN, text), *_values(_ASSIGNED, text)}
    return found | written | set(_logins(text))


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
            found = sorted(file.secrets - ({_KEY} if _tests_itself(file) else set()))
            if file.kind == "file" and file.size and _NAMES.fullmatch(file.path):
                found.append("a file for secrets")
            # The same object: a later layer would have put another in its place.
            hidden = "" if subject.tree.files.get(file.path) is file else ", hidden by a later one"
            yield from (f"{what}: {file.path} (layer {number}{hidden})" for what in found)


def _tests_itself(file: File) -> bool:
    """Whether a private key in it is one that everybody has: Debian's libgnutls.so.30 has some."""
    return file.elf is not None and file.path.startswith("/usr/lib/")


def _in_config(subject: Subject) -> Iterator[str]:
    config = subject.config
    labels = [f"{name}={value}" for name, value in config.labels.items()]
    read_by_a_shell: dict[str, Iterable[str]] = {
        "the history": config.history,
        "the command": (" ".join([*config.entrypoint, *config.command]),),
        "the healthcheck": (" ".join(config.healthcheck),),
    }
    for place, texts in read_by_a_shell.items():
        for text in texts:
            yield from (f"{what}: in {place}" for what in in_words(text))
    for place, texts in {"the environment": config.environment, "a label": labels}.items():
        for text in texts:
            yield from (f"{what}: in {place}" for what in in_words(text, shell=False))


def in_words(text: str, *, shell: bool = True) -> list[str]:
    """What a command, a setting or a label has of secrets: which kind, never what.

    Without a `shell` nothing is put in the place of `$name`.
    """
    values = _values(_ASSIGNED, text, _VARIABLE if shell else _PLACEHOLDER)
    found = [*sorted(kinds(text.encode(errors="replace"))), *values]
    return [*found, *_values(_OPTION, text), *_logins(text)]


def shown(text: str) -> str:
    """The words of an image as a report may show them: not at all where a secret is among them."""
    return "(not shown: a secret is in it)" if in_words(text) else text


def _values(
    pattern: re.Pattern[str], text: str, variable: re.Pattern[str] = _VARIABLE
) -> Iterator[str]:
    """What is assigned and no setting, by its name."""
    for name, value in pattern.findall(text):
        if not variable.fullmatch(value) and not _is_setting(name, value):
            yield f"a value of {name}"


def _logins(text: str) -> Iterator[str]:
    if _BEARER.search(text):
        yield "a login in a header"
    if _IN_QUERY.search(text):
        yield "a key in an address"
    yield from _addresses(text)
    if _OF_CURL.search(text):
        yield "a password given to curl"
    if _OF_LOGIN.search(text):
        yield "a password given to a login"


def _addresses(text: str) -> Iterator[str]:
    if _IN_ADDRESS.search(text):
        yield "a password in an address"
    users = (unquote(user) for user in _USER_OF_ADDRESS.findall(text))
    if any(not _USER.fullmatch(user) for user in users):
        yield "a token in an address"


def _is_setting(name: str, value: str) -> bool:
    """Whether a value says how a program behaves, under a name that sounds like a secret's.

    By name and value together: a number is a limit in MAX_TOKENS and a password in PASSWORD.
    """
    if _UNSET.fullmatch(value):
        return True
    return any(names.fullmatch(name) and values.fullmatch(value) for names, values in _SETTINGS)
