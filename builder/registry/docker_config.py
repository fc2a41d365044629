"""Docker's own configuration file, checked before the SDK reads it.

The SDK takes a file that it cannot read for none, or fails in words of Python:
https://docs.docker.com/reference/cli/docker/#docker-cli-configuration-file-configjson-properties
"""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from builder.common.errors import UsageError

_LEGACY = ".dockercfg"


def require_readable() -> None:
    """Raises UsageError with the file and the place in it of what Docker could not read either."""
    from docker.utils.config import find_config_file

    found = str(find_config_file() or "")
    # Of the old form, which need not be JSON, the SDK knows more.
    if not found or Path(found).name == _LEGACY:
        return
    try:
        content = json.loads(Path(found).read_bytes().decode())
    except OSError as error:
        raise UsageError(f"{found} cannot be read", why=error.strerror or "") from error
    except RecursionError:
        raise UsageError(f"{found} is nested too deep") from None
    except json.JSONDecodeError as error:
        # Only where: its lines have logins.
        where = f"line {error.lineno}, column {error.colno}: {error.msg}"
        raise UsageError(f"{found} is not valid JSON", why=where, hint=_hint(found)) from None
    except ValueError:
        raise UsageError(f"{found} is not text in UTF-8", hint=_hint(found)) from None
    for fault in _faults(content):
        raise UsageError(f"{found}: {fault}", hint=_hint(found))


def _hint(file: str) -> str:
    return f"mend it, or move it away and `docker login` anew: {file}"


def _faults(content: Any) -> Iterator[str]:  # noqa: ANN401 -- whatever JSON has
    if not isinstance(content, dict):
        yield "it is not an object"
        return
    store = content.get("credsStore")
    if store is not None and not isinstance(store, str):
        yield "credsStore is not a name"
    for key in ("auths", "credHelpers", "proxies", "HttpHeaders"):
        if content.get(key) is not None and not isinstance(content[key], dict):
            yield f"{key} is not an object"
            return
    if any(not isinstance(one, dict) for one in (content.get("proxies") or {}).values()):
        yield "proxies: one is not an object"
    for host, helper in (content.get("credHelpers") or {}).items():
        if not isinstance(helper, str):
            yield f"credHelpers, {host}: it is not a name"
    for host, entry in (content.get("auths") or {}).items():
        fault = _fault_of_login(entry)
        if fault:
            yield f"auths, {host}: {fault}"


def _fault_of_login(entry: Any) -> str | None:  # noqa: ANN401 -- whatever JSON has
    if not isinstance(entry, dict):
        return "it is not an object"
    if any(not isinstance(entry.get(key, ""), str) for key in ("auth", "identitytoken")):
        return "auth is not a text"
    try:
        word = base64.b64decode(entry.get("auth", "")).decode()
    except ValueError:
        return "auth is not base64"
    return "auth is not USER:PASSWORD in base64" if "auth" in entry and ":" not in word else None
