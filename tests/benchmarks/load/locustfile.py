"""What the clients of the load test ask for; locust runs this in a process, and an environment, of its own.

`LIMNER_LOAD` names a JSON file with the key, the ids of the users and those of the items. The ids are drawn at random,
evenly; the clients do not pause.
"""

import json
import os
import random
from pathlib import Path
from urllib.parse import quote

from locust import FastHttpUser, task

TOLD = json.loads(Path(os.environ["LIMNER_LOAD"]).read_text(encoding="utf-8"))


class Client(FastHttpUser):
    """A client with the key that reads."""

    abstract = True

    def read(self, path: str, kind: str) -> None:
        """Ask about any user; an answer that is no 200 counts as failed."""
        user = quote(random.choice(TOLD["users"]), safe="")  # noqa: S311
        headers = {"Authorization": f"Bearer {TOLD['token']}"}
        with self.client.get(f"/v1/users/{user}/{path}", headers=headers, name=kind, catch_response=True) as answer:
            if answer.status_code != 200:
                answer.failure(f"status {answer.status_code}")


class Profiles(Client):
    """Reads profiles."""

    @task
    def profile(self) -> None:
        """Read one."""
        self.read("profile", "profiles")


class Recommendations(Client):
    """Reads recommendations."""

    @task
    def recommendations(self) -> None:
        """Read ten."""
        self.read("recommendations", "recommendations")


class Explanations(Client):
    """Reads explanations."""

    @task
    def explanation(self) -> None:
        """Read that of any item."""
        item = quote(random.choice(TOLD["items"]), safe="")  # noqa: S311
        self.read(f"explanations/{item}", "explanations")
