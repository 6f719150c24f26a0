"""A client of the service: typed, synchronous, safe to share between threads.

Each route has a method of its own name (`/docs` lists them), which answers with the service's own models. Importing it
takes no more than httpx, orjson and Pydantic.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack

import httpx

from agent.contract import Profile, Writer
from api.contract import (
    BulkReport,
    Corrected,
    Correction,
    DeclaredUser,
    ImportedUser,
    Item,
    Job,
    JobItem,
    JobProgress,
    ListedUser,
    LoggedEvent,
    Page,
    ProfileDiff,
    ProfileVersion,
    TrainedModel,
    UsersFound,
)
from api.sending import ApiError, Sender, Tagged, path_of, read, tagged
from recommend.contract import Answer, Explanation, Recommendations, WhatIf
from store.records import CorrectedKind, ItemState

if TYPE_CHECKING:  # it imports the database
    from api.run_report import RunReport

__all__ = ["ApiError", "Client", "Narrowed", "Tagged", "Wanted"]

_EVENT_S = 60.0  # a stream of progress gives a sign of life every 15 s


class Wanted(TypedDict, total=False):
    """Which list of recommendations is meant; `attribute` holds texts such as `year=1994`."""

    k: int
    seen: bool
    category: Sequence[str]
    attribute: Sequence[str]
    exclude: Sequence[str]
    claim: str
    diversity: float
    near: float


class Narrowed(TypedDict, total=False):
    """Which of a job's users are meant, and what is done with them."""

    where: Mapping[str, str]
    changed: bool
    changed_since: datetime
    older_than: datetime
    drifted: bool
    policy: bool
    force: bool


class Client(Sender):
    """A client of one service.

    What changes something is sent under an `Idempotency-Key`, so that it is done once even if it is sent twice. A
    request is sent again where the connection fails, and where the service says when to try again (`Retry-After`).

    Each method raises `ApiError` where the service refuses, and `httpx.TransportError` where it cannot be reached.

    Args:
        base_url: Such as `http://127.0.0.1:8000`.
        key: From `limner keys create`; none: on the service's own machine, as long as it has no keys.
        timeout: Seconds that an answer may take.
        patience: So many seconds after its first failure, a request is not sent again any more; 0: never.
        transport: Of httpx, for proxies and certificates.
    """

    # Items and events

    def add_items(self, rows: Iterable[Mapping[str, Any]], source: str = "api") -> BulkReport:
        """Store items; each row replaces what was stored of its item. A request takes 16 MiB, unless it was raised."""
        return self._bulk("/items", rows, source)

    def list_items(self) -> Iterator[Item]:
        """Yield all items, in order of id."""
        return self._pages(Page[Item], "/items")

    def read_item(self, item_id: str) -> Item:
        """Return an item."""
        return self._get(Item, path_of("/items/{}", item_id))

    def add_events(self, rows: Iterable[Mapping[str, Any]], source: str = "api") -> BulkReport:
        """Store events; what is known from the same source is not stored twice."""
        return self._bulk("/events", rows, source)

    # Users

    def list_users(self) -> Iterator[ListedUser]:
        """Yield all users, in order of id."""
        return self._pages(Page[ListedUser], "/users")

    def search_users(self, q: str, limit: int = 20) -> UsersFound:
        """Return the users with the claims nearest in meaning; scope admin."""
        return self._get(UsersFound, "/users/search", q=q, limit=limit)

    def read_user(self, user_id: str, known: Tagged[DeclaredUser] | None = None) -> Tagged[DeclaredUser]:
        """Return what a user declares; `known` itself if that is still so."""
        return self._tagged(DeclaredUser, path_of("/users/{}", user_id), known)

    def declare_user(
        self,
        user_id: str,
        *,
        consent: bool,
        attributes: Mapping[str, Any] | None = None,
        language: str | None = None,
        tz: str | None = None,
        if_match: str | None = None,
    ) -> Tagged[DeclaredUser]:
        """Make a user, or replace all that they declare."""
        said = {"consent": consent, "attributes": attributes or {}, "language": language, "tz": tz}
        return tagged(DeclaredUser, self._send("PUT", path_of("/users/{}", user_id), said, if_match=if_match))

    def list_user_events(self, user_id: str) -> Iterator[LoggedEvent]:
        """Yield what a user did, the newest first."""
        return self._pages(Page[LoggedEvent], path_of("/users/{}/events", user_id))

    def export_user(self, user_id: str) -> bytes:
        """Return everything that is held on a user, as a document of JSON."""
        return self._send("GET", path_of("/users/{}/export", user_id)).content

    def import_exported_user(self, document: bytes) -> ImportedUser:
        """Take in an exported user."""
        return read(ImportedUser, self._send("POST", "/users/import", document))

    def erase_user(self, user_id: str) -> None:
        """Erase everything that is held on a user; what comes in about them later is dropped."""
        self._send("DELETE", path_of("/users/{}", user_id))

    def allow_user(self, user_id: str) -> None:
        """Let data about an erased user be taken in again."""
        self._send("DELETE", path_of("/erasures/{}", user_id))

    # Profiles and claims

    def read_profile(self, user_id: str, known: Tagged[Profile] | None = None) -> Tagged[Profile]:
        """Return the active profile; `known` itself if nothing has changed."""
        return self._tagged(Profile, path_of("/users/{}/profile", user_id), known)

    def list_profile_versions(self, user_id: str) -> Iterator[ProfileVersion]:
        """Yield all versions, the newest first."""
        return self._pages(Page[ProfileVersion], path_of("/users/{}/profile/versions", user_id))

    def read_profile_version(self, user_id: str, version: int) -> Profile:
        """Return a version, active or not."""
        return self._get(Profile, path_of("/users/{}/profile/versions/{}", user_id, version))

    def diff_profile(self, user_id: str, from_version: int, to_version: int) -> ProfileDiff:
        """Return the claims that differ between two versions."""
        path = path_of("/users/{}/profile/diff", user_id)
        return self._get(ProfileDiff, path, from_version=from_version, to_version=to_version)

    def refresh_profile(self, user_id: str, *, writer: Writer = "llm", force: bool = False) -> JobProgress:
        """Have a profile written anew by the workers; see `wait_job`."""
        said = {"writer": writer, "force": force}
        return read(JobProgress, self._send("POST", path_of("/users/{}/profile/refresh", user_id), said))

    def add_claim(
        self,
        user_id: str,
        name: str,
        statement: str | None = None,
        *,
        kind: CorrectedKind = "interest",
        if_match: str | None = None,
    ) -> Tagged[Corrected]:
        """Add a claim (an interest or a dislike) in the user's words."""
        said = {"name": name, "statement": statement, "kind": kind}
        return self._correct("POST", path_of("/users/{}/claims", user_id), if_match, said)

    def rewrite_claim(
        self,
        user_id: str,
        claim_id: str,
        *,
        name: str | None = None,
        statement: str | None = None,
        if_match: str | None = None,
    ) -> Tagged[Corrected]:
        """Put a claim into the user's words."""
        said = {"name": name, "statement": statement}
        return self._correct("PATCH", path_of("/users/{}/claims/{}", user_id, claim_id), if_match, said)

    def pin_claim(self, user_id: str, claim_id: str, if_match: str | None = None) -> Tagged[Corrected]:
        """Keep a claim and its words in every later profile."""
        return self._correct("POST", path_of("/users/{}/claims/{}/pin", user_id, claim_id), if_match)

    def reject_claim(self, user_id: str, claim_id: str, if_match: str | None = None) -> Tagged[Corrected]:
        """Say that a claim is wrong."""
        return self._correct("POST", path_of("/users/{}/claims/{}/reject", user_id, claim_id), if_match)

    def lessen_claim(
        self, user_id: str, claim_id: str, rho: float | None = None, if_match: str | None = None
    ) -> Tagged[Corrected]:
        """Ask for less of a claim; `rho` is what is left of it, from 0 to 1."""
        return self._correct("POST", path_of("/users/{}/claims/{}/less", user_id, claim_id), if_match, rho=rho)

    def list_corrections(self, user_id: str) -> Iterator[Correction]:
        """Yield the corrections in force, oldest first."""
        return self._pages(Page[Correction], path_of("/users/{}/corrections", user_id))

    def undo_correction(self, user_id: str, correction_id: int, if_match: str | None = None) -> Tagged[Corrected]:
        """Take a correction back."""
        return self._correct("DELETE", path_of("/users/{}/corrections/{}", user_id, correction_id), if_match)

    # Recommendations and questions

    def recommendations(self, user_id: str, **wanted: Unpack[Wanted]) -> Recommendations:
        """Return the best items for a user."""
        return self._get(Recommendations, path_of("/users/{}/recommendations", user_id), **wanted)

    def explanation(
        self,
        user_id: str,
        item_id: str,
        *,
        shown: int | None = None,
        counterfactual: bool = False,
        narrate: bool = False,
        **wanted: Unpack[Wanted],
    ) -> Explanation:
        """Return the parts that an item's score is the sum of."""
        path = path_of("/users/{}/explanations/{}", user_id, item_id)
        return self._get(Explanation, path, shown=shown, counterfactual=counterfactual, narrate=narrate, **wanted)

    def what_if(
        self,
        user_id: str,
        item_id: str,
        *,
        without_event: Sequence[str] = (),
        without_claim: Sequence[str] = (),
        **wanted: Unpack[Wanted],
    ) -> WhatIf:
        """Return where an item would stand without events or claims."""
        path = path_of("/users/{}/explanations/{}/what-if", user_id, item_id)
        return self._get(WhatIf, path, without_event=without_event, without_claim=without_claim, **wanted)

    def ask(self, user_id: str, question: str) -> Answer:
        """Answer a question about a user's profile and recommendations."""
        return read(Answer, self._send("POST", path_of("/users/{}/ask", user_id), {"question": question}))

    # Jobs and models

    def create_job(
        self,
        users: Literal["all"] | Sequence[str],
        *,
        writer: Writer = "llm",
        idempotency_key: str | None = None,
        **narrowed: Unpack[Narrowed],
    ) -> JobProgress:
        """Have profiles written by the workers; under a key of your own, once a day however often this is called."""
        said = {"kind": "profiles", "users": users, "writer": writer, **narrowed}
        return read(JobProgress, self._send("POST", "/jobs", said, idempotency_key=idempotency_key))

    def list_jobs(self) -> Iterator[Job]:
        """Yield all jobs, the newest first."""
        return self._pages(Page[Job], "/jobs")

    def read_job(self, job_id: str) -> JobProgress:
        """Return a job, and how far it is."""
        return self._get(JobProgress, path_of("/jobs/{}", job_id))

    def cancel_job(self, job_id: str) -> JobProgress:
        """Cancel what is queued of a job."""
        return read(JobProgress, self._send("POST", path_of("/jobs/{}/cancel", job_id)))

    def resume_job(self, job_id: str) -> JobProgress:
        """Leave to the workers what is left of a run whose process is gone."""
        return read(JobProgress, self._send("POST", path_of("/jobs/{}/resume", job_id)))

    def list_job_items(self, job_id: str, state: ItemState | None = None) -> Iterator[JobItem]:
        """Yield the users of a job: how each ended, and why those failed that did."""
        return self._pages(Page[JobItem], path_of("/jobs/{}/items", job_id), state=state)

    def report_job(self, job_id: str) -> "RunReport":
        """Return what a job of profiles came to; its model imports the service's database layer."""
        from api.run_report import RunReport  # noqa: PLC0415 - as the docstring says

        return self._get(RunReport, path_of("/jobs/{}/report", job_id))

    def follow_job(self, job_id: str) -> Iterator[JobProgress]:
        """Yield a job at each change of it, until it is over; `wait_job` outlives broken connections, this does not."""
        timeout = httpx.Timeout(self._timeout, read=_EVENT_S)
        with self._http.stream("GET", "/v1" + path_of("/jobs/{}/progress", job_id), timeout=timeout) as response:
            if response.is_error:
                response.read()
                raise ApiError(response)
            rest = b""
            for part in response.iter_bytes():
                *lines, rest = (rest + part).split(b"\n")
                for line in lines:
                    if line.startswith(b"data:"):
                        yield JobProgress.model_validate_json(line.removeprefix(b"data:"), extra="ignore")

    def wait_job(self, job_id: str, timeout_s: float | None = None, every_s: float = 1.0) -> JobProgress:
        """Return a job once it is over, however it ended.

        Raises:
            TimeoutError: It was not over in time.
        """
        began = time.monotonic()
        while (job := self.read_job(job_id)).finished_at is None:
            if timeout_s is not None and time.monotonic() - began >= timeout_s:
                raise TimeoutError(f"The job {job_id} is {job.state} after {timeout_s:g} s. Does a worker run?")
            time.sleep(every_s)
        return job

    def list_models(self) -> Iterator[TrainedModel]:
        """Yield all models, the newest first."""
        return self._pages(Page[TrainedModel], "/models")

    def train_model(self, *, defaults: bool = False) -> JobProgress:
        """Have a model trained by a worker; the job's `model_id` names it once it is there, and active."""
        return read(JobProgress, self._send("POST", "/models", {"defaults": defaults}))

    def activate_model(self, model_id: int) -> TrainedModel:
        """Recommend with this model from now on."""
        return read(TrainedModel, self._send("POST", path_of("/models/{}/activate", model_id)))
