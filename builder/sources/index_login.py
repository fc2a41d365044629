"""The login for a package index, by pip's own rules.

An address that names a login shows that one; else every address of the index's scheme, host and
port shows the index's; else what ~/.netrc has:
https://pip.pypa.io/en/stable/topics/authentication/
"""

from typing import TYPE_CHECKING
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from requests.auth import HTTPBasicAuth
from requests.utils import get_netrc_auth

from builder.common.errors import UsageError
from builder.common.limited_http import Limits
from builder.common.sessions import Origin, Session, origin

if TYPE_CHECKING:
    from requests import PreparedRequest

_Login = tuple[str, str]


def session(index_url: str, limits: Limits) -> tuple[str, Session]:
    """The index's address without a login, and a session that shows the login where pip does.

    So no error of a request has the login in its text. Raises UsageError when that is no address.
    """
    try:
        parts = urlsplit(index_url)
        login, address = _login(parts), _without_login(parts)
    except ValueError as error:
        # Not quoted: there may be a password in it.
        raise UsageError(
            "pip's index-url is not a valid address", hint="`pip config list` shows it"
        ) from error
    made = Session(limits)
    made.auth = _Auth(origin(address), login)
    return address, made


class _Auth:
    """Shows a request's login: it is asked once for each request, not for its redirects."""

    def __init__(self, index: Origin, login: _Login | None) -> None:
        self._index, self._login = index, login

    def __call__(self, request: "PreparedRequest") -> "PreparedRequest":
        url = str(request.url)
        login = _login(urlsplit(url))
        if login is None and origin(url) == self._index:
            login = self._login
        login = login or get_netrc_auth(url)
        return HTTPBasicAuth(*login)(request) if login else request


def _login(parts: SplitResult) -> _Login | None:
    """The login in an address; a token alone is a user without a password."""
    if parts.username is None:
        return None
    return unquote(parts.username), unquote(parts.password or "")


def _without_login(parts: SplitResult) -> str:
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
