"""Show a page of viser only to people who have its address, which holds a token.

Without it, every page that is open in a browser of this machine could connect to the server: a
browser lets any page open a websocket to any address. viser has no setting for this. Therefore, the
function that answers its requests is wrapped while the server starts.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

from uns_pose_ros.core.errors import InvalidInput

_ADVICE = "open the whole address that the command printed, with its token\n"


class PageGuard:
    """Refuses requests without the token, and websockets of other pages."""

    def __init__(self) -> None:
        """Make a new token."""
        self.token = secrets.token_urlsafe(16)
        self._cookie = f"uns_pose_{secrets.token_hex(4)}"
        self._used = False

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Guard the viser server that is made in this context.

        Raises:
            InvalidInput: The installed version of viser does not start its server as expected.
        """
        import websockets.asyncio.server as server

        serve = server.serve

        def guarded_serve(*arguments: Any, **options: Any) -> Any:
            self._used = True
            options["process_request"] = self.wrap(options.get("process_request"))
            return serve(*arguments, **options)

        server.serve = guarded_serve  # type: ignore[assignment,misc]
        try:
            yield
        finally:
            server.serve = serve  # type: ignore[misc]
        if not self._used:
            raise InvalidInput(
                "this version of viser cannot be kept to one reader: viser 1.1 is valid"
            )

    def wrap(self, answer: Callable[[Any, Any], Any] | None) -> Callable[[Any, Any], Any]:
        """Wrap a `process_request` function of websockets.

        Args:
            answer: Answers plain requests; it returns None for a websocket.
        """

        def guarded(connection: Any, request: Any) -> Any:
            given = parse_qs(urlsplit(request.path).query).get("token", [""])[0]
            shown = self._is_token(given)
            if not shown and not self._is_token(self._token_of_cookie(request.headers)):
                return connection.respond(HTTPStatus.FORBIDDEN, _ADVICE)
            if not _has_own_origin(request.headers):
                return connection.respond(HTTPStatus.FORBIDDEN, "another page's request\n")
            response = answer(connection, request) if answer is not None else None
            if response is not None and shown:
                response.headers["Set-Cookie"] = (
                    f"{self._cookie}={self.token}; Path=/; HttpOnly; SameSite=Strict"
                )
            return response

        return guarded

    def _is_token(self, text: str) -> bool:
        return hmac.compare_digest(text.encode(), self.token.encode())

    def _token_of_cookie(self, headers: Any) -> str:
        cookies = SimpleCookie()
        try:
            for line in headers.get_all("Cookie"):
                cookies.load(line)
        except CookieError:
            return ""
        morsel = cookies.get(self._cookie)
        return "" if morsel is None else morsel.value


def _has_own_origin(headers: Any) -> bool:
    """Whether a request comes from a page of the same host and port, or from no page at all."""
    origins, hosts = headers.get_all("Origin"), headers.get_all("Host")
    if not origins:
        return True
    return len(origins) == len(hosts) == 1 and urlsplit(origins[0]).netloc == hosts[0]
