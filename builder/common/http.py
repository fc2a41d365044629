"""One HTTP question with limits: how long it may take, how much may come, how it fails in words."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Literal

from builder.common.errors import RemoteUnavailableError

if TYPE_CHECKING:
    import requests

_TIMEOUT_S = (3.0, 5.0)
"""To connect, and for each read."""
_DEADLINE_S = 10.0
"""For one answer, so that a server which sends a byte now and then is given up."""
_PATIENCE_S = 2.0
"""The longest Retry-After that is waited for, once."""
_LARGEST = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said, whatever its status."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def session() -> "requests.Session":
    """A session to `ask` with."""
    from builder.common import limited_http, sessions

    return sessions.Session(limited_http.Limits(_LARGEST, _DEADLINE_S))


def ask(
    session: "requests.Session",
    url: str,
    *,
    method: Literal["GET", "HEAD", "POST", "PATCH"] = "GET",
    headers: Mapping[str, str] | None = None,
    params: Mapping[str, str] | None = None,
    json: Mapping[str, object] | None = None,
) -> Answer:
    """The whole answer; a server that asks for a short pause is asked once more after it.

    Raises RemoteUnavailableError when none comes.
    """
    answer = _once(session, url, method, headers, params, json)
    wait = retry_after(answer.headers)
    if answer.status in {403, 429, 503} and wait is not None and wait <= _PATIENCE_S:
        time.sleep(wait)
        return _once(session, url, method, headers, params, json)
    return answer


def _once(
    session: "requests.Session",
    url: str,
    method: str,
    headers: Mapping[str, str] | None,
    params: Mapping[str, str] | None,
    json: Mapping[str, object] | None,
) -> Answer:
    import requests
    import urllib3

    from builder.common.limited_http import EndlessError

    try:
        with session.request(
            method,
            url,
            headers=headers,
            params=params,
            json=json,
            timeout=_TIMEOUT_S,
            stream=True,
            allow_redirects=True,
        ) as response:
            body = response.raw.read(decode_content=True)
            return Answer(response.status_code, response.headers, body)
    except EndlessError as error:
        raise _silent(url, str(error)) from error
    # ValueError: an address that it redirects to is none.
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        # Its own text is a paragraph of class names and pool addresses.
        raise _silent(url, f"no whole answer ({type(error).__name__})") from error


def _silent(url: str, why: str) -> RemoteUnavailableError:
    return RemoteUnavailableError(f"{url} does not answer", why=why)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, from a number or a date; None when the server does not say."""
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    then = moment(text)
    return None if then is None else max(0.0, then - time.time())


def moment(date: str) -> float | None:
    """Seconds since 1970 of a header's date; None: it is none."""
    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError, OSError):  # 1 January 9999 in a zone before UTC, for one
        return None
