"""Takes logs and catalogues from files into the store."""

from store.ingest.run import IngestReport, ingest

__all__ = ["IngestReport", "ingest"]
