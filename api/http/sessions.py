"""Sessions of browsers: a signed cookie that stands for a key, and the token that each form of the pages sends.

The key itself is not in the cookie. Whether the key is still in force, and the session was not signed out, is asked of
the database with each request: revoking the key ends all its sessions, signing out ends one, copies of the cookie too.
"""

import hashlib
import hmac
import secrets
from typing import NamedTuple

from itsdangerous import BadData, URLSafeTimedSerializer
from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import Response
from starlette.types import Scope

COOKIE = "limner_session"
TOKEN_FIELD, TOKEN_HEADER = "csrf", "X-CSRF-Token"
SECONDS = 12 * 3_600
"""After so long, one signs in again."""
_PAGES = frozenset(
    {"", "evaluation", "items", "jobs", "map", "search", "sign-in", "sign-out", "users"}
)  # fmt: skip


def is_page(path: str) -> bool:
    """Tell whether a path is one of a page: its first part is.

    >>> is_page("/users/405"), is_page("/v1/users/405")
    (True, False)
    """
    return path.removeprefix("/").partition("/")[0] in _PAGES


class Session(NamedTuple):
    """A session.

    Attributes:
        key_id: Of the key that was shown; None: nobody has signed in.
        nonce: Random; it names the session, and the token of its forms follows from it.
        known: Whether the browser has its cookie already.
    """

    key_id: str | None
    nonce: str
    known: bool


class Sessions:
    """Makes and reads sessions.

    Args:
        secret: Only servers of this installation have it.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._signer = URLSafeTimedSerializer(secret, "limner", signer_kwargs={"digest_method": hashlib.sha256})

    def begin(self, key_id: str | None) -> Session:
        """Begin a session."""
        return Session(key_id, secrets.token_urlsafe(16), known=False)

    def of(self, scope: Scope) -> Session:
        """Return the session of a request; one that nobody has signed in to, if there is none or it is too old."""
        try:
            cookie = cookie_parser(Headers(scope=scope).get("cookie", "")).get(COOKIE, "")
            key_id, nonce = self._signer.loads(cookie, max_age=SECONDS)
        except BadData:
            return self.begin(None)
        return Session(key_id, nonce, known=True)

    def token(self, session: Session) -> str:
        """Return the token that the session's forms send along."""
        return hmac.digest(self._secret, f"token {session.nonce}".encode(), hashlib.sha256).hex()

    def holds(self, session: Session, token: str) -> bool:
        """Tell whether a token is the session's."""
        return hmac.compare_digest(self.token(session).encode(), token.encode())

    def keep(self, session: Session, response: Response, *, secure: bool) -> None:
        """Let the browser keep a session."""
        signed = self._signer.dumps((session.key_id, session.nonce))
        response.set_cookie(
            COOKIE, str(signed), max_age=SECONDS, httponly=True, samesite="lax", secure=secure, path="/"
        )
