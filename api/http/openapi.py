"""The OpenAPI description: what every route has in common is added here, once."""

from importlib import metadata
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from api.contract import ProblemDocument
from api.http.middleware import UNSAFE
from api.http.problems import documented

try:
    VERSION = metadata.version("limner")
except metadata.PackageNotFoundError:  # from a checkout
    VERSION = "0"

DESCRIPTION = """\
Profiles whose every claim cites its events, and recommendations with reasons that add up.

* **Keys.** `Authorization: Bearer lim_…`; scopes `read`, `write`, `admin`, and `self:<user_id>` for one user's own.
* **Ids** are free text; in paths they are percent-encoded, slashes too.
* **Lists** come in pages: give the `next` of a page back as `after`.
* **Errors** are problem details (RFC 9457); `instance` names the request, as in the log.
* **`Idempotency-Key`** on unsafe methods: a request that is sent again gets the response that it got, for a day.
* **`ETag`** on profiles: `If-None-Match` saves a transfer, `If-Match` refuses a change that rests on an old version.
"""
TAGS = [
    {"name": "events", "description": "What users did."},
    {"name": "items", "description": "What they did it with."},
    {"name": "users", "description": "Who they are, as declared."},
    {"name": "profiles", "description": "What is said of users, version by version, with the events behind it."},
    {"name": "claims", "description": "What users say to it; no later profile forgets that."},
    {"name": "questions", "description": "Answers that name their sources."},
    {"name": "jobs", "description": "Profiles to write and models to train, done by workers in their own time."},
    {"name": "models", "description": "What recommendations are made with."},
    {"name": "privacy", "description": "All that is held on a person: export, import, erasure."},
    {"name": "service", "description": "How the server is."},
]
_IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "A name for this request, best a random one: sent again within a day, it is not done again.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
    "example": "0b7a1d5e-7f0c-4d1b-9a53-5c9a35f9e7b1",
}
_ETAGS = {"type": "string"}
_CONDITIONS = {
    "304": ("If-None-Match", "ETags that the client has: where one is the present one, the answer has no body."),
    "412": ("If-Match", "ETags that the change may rest on: where none is the present one, nothing is changed."),
}


def install(app: FastAPI) -> None:
    """Let an app describe itself."""

    def describe() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _described(app)
        return app.openapi_schema

    app.openapi = describe  # type: ignore[method-assign]


def _described(app: FastAPI) -> dict[str, Any]:
    schema = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes, tags=app.openapi_tags
    )
    models = schema.setdefault("components", {}).setdefault("schemas", {})
    problem = ProblemDocument.model_json_schema(ref_template="#/components/schemas/{model}")
    models |= problem.pop("$defs", {}) | {ProblemDocument.__name__: problem}
    for path in schema["paths"].values():
        for method, operation in path.items():
            if method.upper() in UNSAFE:
                operation.setdefault("parameters", []).append(_IDEMPOTENCY_KEY)
                for status in (409, 413, 415):
                    operation["responses"].setdefault(str(status), documented(status))
            operation.setdefault("parameters", []).extend(
                {"name": name, "in": "header", "required": False, "description": told, "schema": _ETAGS}
                for status, (name, told) in _CONDITIONS.items()
                if status in operation["responses"]
            )
    return schema
