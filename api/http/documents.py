"""Profiles as they are sent: a version never changes, so the bytes of those that are read again and again are kept."""

import threading

from cachetools import TTLCache

_BYTES = 64 << 20
_SECONDS = 600


class Documents:
    """The active profiles that were read last, at most one for each user, for ten minutes and 64 MiB."""

    def __init__(self) -> None:
        self._kept: TTLCache[str, tuple[int, bytes]] = TTLCache(_BYTES, _SECONDS, getsizeof=lambda kept: len(kept[1]))
        self._lock = threading.Lock()

    def get(self, user_id: str, profile_id: int | None) -> bytes | None:
        """Return the document of this profile; what is kept of another of the user is forgotten."""
        with self._lock:
            kept = self._kept.get(user_id)
            if kept is not None and kept[0] != profile_id:
                del self._kept[user_id]
                return None
        return None if kept is None else kept[1]

    def put(self, user_id: str, profile_id: int, document: bytes) -> None:
        """Keep a document, unless it is larger than all that may be kept."""
        with self._lock:
            self._kept.pop(user_id, None)
            if len(document) <= _BYTES:
                self._kept[user_id] = (profile_id, document)

    def forget(self, user_id: str) -> None:
        """Forget what is kept of a user."""
        with self._lock:
            self._kept.pop(user_id, None)
