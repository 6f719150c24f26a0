"""A person's data as a whole: export, import, erasure."""

from collections.abc import Iterator
from tempfile import SpooledTemporaryFile

from fastapi import APIRouter, Request
from starlette.responses import StreamingResponse

from agent import archive
from api import runtime
from api.contract import ImportedUser
from api.http.auth import Admin, UserReader, note
from api.http.ids import UserId
from api.http.problems import responses
from api.http.state import StateDep
from store import erasure
from store.export import Export, export
from store.user_import import import_user, read_export

router = APIRouter(prefix="/v1", tags=["privacy"])
_CHUNK = 1 << 16


@router.get("/users/{user_id}/export", summary="Export a user", response_model=Export, responses=responses(404))
def export_user(user_id: UserId, state: StateDep, _caller: UserReader) -> StreamingResponse:
    """Everything that is held on a user, in one document; with consent or without. It can be imported elsewhere."""
    file = export(state.database, state.hasher, user_id, runtime.now())
    headers = {"Content-Disposition": 'attachment; filename="user.json"', "Cache-Control": "no-store"}
    return StreamingResponse(_parts(file), media_type="application/json", headers=headers)


@router.post(
    "/users/import",
    status_code=201,
    summary="Import a user",
    responses=responses(409),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Export"}}},
        }
    },
)
def import_exported_user(request: Request, state: StateDep, caller: Admin) -> ImportedUser:
    """Take in an exported user, all of it or nothing; the audit stays behind.

    The user must not be there yet. Items that are there stay as they are. The claims count in recommendations again
    when the next profiles have been written.
    """
    given: SpooledTemporaryFile[bytes] = request.scope["body"]
    given.seek(0)
    made = import_user(
        state.database,
        state.hasher,
        read_export(given.read()),
        runtime.now(),
        known_types=state.settings.evidence_settings.types.keys(),
        check=archive.from_rows,
    )
    note(state, caller, "import_exported_user", [made.user_id])
    return ImportedUser(**made._asdict())


@router.delete("/users/{user_id}", status_code=204, summary="Erase a user", responses=responses(404))
def erase_user(user_id: UserId, state: StateDep, caller: Admin) -> None:
    """Erase everything that is held on a user; what comes in about them later is dropped.

    Of them stay a tombstone and the audit, both under a keyed hash. Asked for again, it is a success again.
    """
    erasure.erase(
        state.database,
        state.hasher,
        state.settings.home,
        user_id,
        runtime.now(),
        key_id=caller.key_id,
        request_id=caller.request_id,
    )
    state.documents.forget(user_id)


@router.delete("/erasures/{user_id}", status_code=204, summary="Let an erased user come back", responses=responses(404))
def allow_user(user_id: UserId, state: StateDep, caller: Admin) -> None:
    """Remove a tombstone: data about the user is taken in again. What was erased stays erased."""
    erasure.allow(
        state.database,
        state.hasher,
        state.settings.home,
        user_id,
        runtime.now(),
        key_id=caller.key_id,
        request_id=caller.request_id,
    )


def _parts(file: SpooledTemporaryFile[bytes]) -> Iterator[bytes]:
    with file:
        while data := file.read(_CHUNK):
            yield data
