"""What can go wrong in the store; every error says what to do next."""


class StoreError(Exception):
    """Root of this package's errors."""


class UnreachableError(StoreError):
    """The database cannot be reached; what was under way can be taken up again later."""


class ServerError(StoreError):
    """A server process could not be started or did not become ready."""


class MigrationError(StoreError):
    """The database is not at the revision that this code needs."""


class IngestError(StoreError):
    """A file could not be ingested; nothing of it was stored."""


class NotFoundError(StoreError):
    """Something asked for by name is not in the store."""


class ConflictError(StoreError):
    """A write was refused because the store has moved on since it was prepared."""


class DownloadError(StoreError):
    """A file could not be fetched, or is not the file that was pinned; nothing of it was kept."""
