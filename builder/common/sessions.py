"""HTTP sessions that keep a login at the place it is for: no .netrc, no cookies, no plain text.

A place is scheme, host and port together, so that `https://host` and `https://host:443` are one.
"""

import ipaddress
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

import requests

from builder.common.errors import RemoteUnavailableError
from builder.common.limited_http import Limits, limit

if TYPE_CHECKING:
    from requests import PreparedRequest, Response

Origin = tuple[str, str, int | None]
"""Scheme, host and port."""

_PORTS = {"http": 80, "https": 443}


def origin(url: str) -> Origin:
    """The place of an address. Raises RemoteUnavailableError when it is not an http(s) address."""
    try:
        parts = urlsplit(url)
        scheme, host, port = parts.scheme.lower(), (parts.hostname or "").lower(), parts.port
    except ValueError:
        scheme, host, port = "", "", None
    if scheme not in _PORTS or not host:
        raise RemoteUnavailableError(f"not an http(s) address: {url.partition('?')[0]!r}"[:200])
    return scheme, host, port if port is not None else _PORTS[scheme]


def named_by(asked: str, named: str) -> str:
    """The whole address of what a server's answer names: a Location, a Link, a realm.

    `asked` is the address that answered. Raises RemoteUnavailableError when that is https and the
    named address is http: what is sent there could be read on the way.
    """
    try:
        url = urljoin(asked, named)
    except ValueError:
        url = named
    if origin(url)[0] == "http" and origin(asked)[0] == "https":
        raise RemoteUnavailableError(
            f"{asked.partition('?')[0]} is asked by https and sends to plain http",
            why=f"it names {url.partition('?')[0]}"[:300],
            hint="a proxy in front of that server may lack the header X-Forwarded-Proto",
        )
    return url


def is_readable(url: str) -> bool:
    """Whether what goes there can be read on its way: by http, to another machine."""
    scheme, host, _ = origin(url)
    if scheme == "https" or host == "localhost":
        return False
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return True


class Session(requests.Session):
    """Follows redirects as a client with a login may; they raise as `named_by` does.

    Without an `auth` of its own it shows nobody's login, whatever ~/.netrc has for the host. No
    answer is longer, or takes longer, than `limits` say.
    """

    def __init__(self, limits: Limits) -> None:
        super().__init__()
        limit(self, limits)
        # Without one requests would send what the machine's ~/.netrc has for the host.
        self.auth = _nobody
        # As Docker's own client: what a server wants kept would go to its other ports too.
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))

    def get_redirect_target(self, resp: "Response") -> str | None:
        """Where an answer sends to, None: nowhere."""
        try:
            target = super().get_redirect_target(resp)
        except UnicodeError as error:
            where = str(resp.url).partition("?")[0]
            raise RemoteUnavailableError(f"{where} redirects to no address") from error
        return None if target is None else named_by(str(resp.url), target)

    def rebuild_auth(self, prepared_request: "PreparedRequest", response: "Response") -> None:
        """Take the login from a request that a redirect sends to another place."""
        if origin(str(prepared_request.url)) != origin(str(response.request.url)):
            prepared_request.headers.pop("Authorization", None)


def _nobody(request: "PreparedRequest") -> "PreparedRequest":
    return request
