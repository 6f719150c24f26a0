"""Reports of evaluations: those under `reports/` in the data directory, listed and shown as they are."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, NamedTuple

from fastapi import Query, Request
from starlette.responses import FileResponse, Response

from api.http.auth import Reader
from api.http.state import StateDep
from api.pages.rendering import HEADERS, page_router, render
from api.run_report import FOLDER
from store.errors import NotFoundError

router = page_router()
_MOST = 200
_LONGEST = 512
# A report is a page of its own, with its styles inside: it may be shown, and do nothing.
_ALONE = HEADERS | {
    "Content-Security-Policy": (
        "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:; "
        "frame-ancestors 'self'; base-uri 'none'; form-action 'none'"
    )
}
Name = Annotated[str, Query(max_length=_LONGEST)]


class Report(NamedTuple):
    """A report.

    Attributes:
        name: Its path under `reports/`.
        made_at: When it was written.
    """

    name: str
    made_at: datetime
    path: Path


@router.get("/evaluation")
def evaluation_page(state: StateDep, _caller: Reader, request: Request, name: Name = "") -> Response:
    """All reports, the newest first, and one of them."""
    found = reports(state.settings.home)
    shown = _named(found, name) if name else None
    return render(request.scope, "evaluation.html", reports=found, shown=shown)


@router.get("/evaluation/report")
def report_page(state: StateDep, _caller: Reader, name: Name) -> Response:
    """A report as it is."""
    return FileResponse(_named(reports(state.settings.home), name).path, headers=_ALONE, media_type="text/html")


def reports(home: Path) -> list[Report]:
    """Return the reports of evaluations, the newest first; those of runs are shown with their jobs."""
    folder = home / FOLDER
    found = [path for path in folder.rglob("*.html") if path.is_file() and not path.name.startswith("batch-")]
    listed = [
        Report(path.relative_to(folder).as_posix(), datetime.fromtimestamp(path.stat().st_mtime, UTC), path)
        for path in found
        if path.resolve().is_relative_to(folder.resolve())
    ]
    return sorted(listed, key=lambda report: (report.made_at, report.name), reverse=True)[:_MOST]


def _named(found: list[Report], name: str) -> Report:
    for report in found:
        if report.name == name:
            return report
    raise NotFoundError(f"There is no report {name}. `limner eval run` makes one.")
