"""What schemathesis is told of the service beside its description."""

import re
import uuid
from typing import Any

import schemathesis

KEY = "Idempotency-Key"


@schemathesis.serializer("application/x-ndjson")
def ndjson(_context: schemathesis.SerializationContext, value: Any) -> dict[str, Any]:
    """Send rows as they were made up."""
    return {"data": value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")}


@schemathesis.hook
def before_call(_context: schemathesis.HookContext, case: schemathesis.Case, _kwargs: dict[str, Any]) -> None:
    """Give each request a name of its own: under one name, the second request would be refused."""
    if re.fullmatch("[!-~]{1,255}", str((case.headers or {}).get(KEY, ""))):
        case.headers[KEY] = str(uuid.uuid4())
