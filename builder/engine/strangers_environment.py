"""The environment that a stranger's program gets: this user's, without what is secret in it."""

import os
import re

from builder.common.redaction import redacted

_SECRET = re.compile(
    r"TOKEN|PASSWORD|PASSWD|PASSPHRASE|SECRET|CREDENTIAL|AUTH|COOKIE|_PAT$"
    r"|(ACCESS|ACCOUNT|PRIVATE|SIGNING|API)_?KEY",
    re.IGNORECASE,
)


def environment() -> dict[str, str]:
    """What is left: no variable of a secret's name, none that holds an address with a login."""
    return {
        name: value
        for name, value in os.environ.items()
        if not _SECRET.search(name) and redacted(value) == value
    }
