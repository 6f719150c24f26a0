"""Keyed hashes of user ids: what audit and tombstones keep in the place of a person."""

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from pydantic import SecretStr

from store.errors import StoreError

KEY_FILE = "privacy.key"
_KEY_BYTES = 32


class Hasher:
    """Hashes user ids under a key: without the key, no one can tell whose hash it is, not even by trying names."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def subject(self, user_id: str) -> str:
        """Return the HMAC-SHA-256 of a user id, as 64 hex digits."""
        return hmac.digest(self._key, user_id.encode(), hashlib.sha256).hex()

    def derived(self, purpose: str) -> bytes:
        """Return a key of its own for a purpose, 32 bytes; no user id has this for its hash, since none holds a NUL."""
        return hmac.digest(self._key, b"\0" + purpose.encode(), hashlib.sha256)


def hasher(home: Path, configured: SecretStr | None) -> Hasher:
    """Return the hasher of this installation.

    Args:
        home: The data directory.
        configured: The key that the settings give; None is the one in `home/privacy.key`, which is made if it is
            not there. Servers with one database must have the same key.

    Raises:
        StoreError: The file cannot be read or made, or holds no key.
    """
    if configured is not None:
        return Hasher(configured.get_secret_value().encode())
    path = home / KEY_FILE
    try:
        home.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            _make(path)
        key = path.read_bytes()
    except OSError as error:
        raise StoreError(
            f"The key {path} cannot be read: {error.strerror}. Mend that, or set LIMNER_PRIVACY_KEY."
        ) from error
    if len(key) < _KEY_BYTES:
        raise StoreError(f"The file {path} holds no key. Bring it back from a backup: no hash is found without it.")
    return Hasher(key)


def _make(path: Path) -> None:
    """Write a new key, so that of two processes that do this at once one wins, and neither sees half a file."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(secrets.token_hex(_KEY_BYTES).encode())
    try:
        path.hardlink_to(draft)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
