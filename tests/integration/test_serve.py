"""`limner serve` as a process, and `limner keys`."""

import json
import re
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.cli import main
from store import keys
from store.database import Database
from tests import command_line
from tests.http_client import (
    http,
    small,
    with_key,
)

__all__ = ["http", "small", "with_key"]

EVERYWHERE = "0.0.0.0"  # noqa: S104


def _url(process: Any) -> str:
    for line in process.stderr:
        if found := re.search(r"listens at (http://\S+),", line):
            return found[1]
    raise AssertionError("the server has ended")


def _answer(url: str, **more: Any) -> httpx.Response:
    with httpx.Client(transport=httpx.HTTPTransport(retries=5), timeout=30) as asking:
        return asking.get(url, **more)


def test_the_server_says_that_there_is_no_key_and_ends_in_good_order(database_url: str, tmp_path: Path) -> None:
    process = command_line.start(["serve", "--port", "0", "--with-worker"], tmp_path, DATABASE_URL=database_url)
    try:
        url = _url(process)
        assert url.startswith("http://127.0.0.1:")
        assert _answer(f"{url}/v1/users").json() == {"items": [], "next": None}
        assert _answer(f"{url}/v1/users/a%2Fb").json()["detail"] == "There is no user a/b."
        for line in process.stderr:  # type: ignore[union-attr]
            if "The worker takes jobs up" in line:
                break
    finally:
        process.send_signal(signal.SIGTERM)
        result = command_line.ended(process)
    assert result.code == 0, result.err
    assert "The worker has ended." in result.err
    assert "The server has ended." in result.err
    lines = [json.loads(line) for line in result.out.splitlines()]
    assert [line["route"] for line in lines if line["event"] == "request"] == ["/v1/users", "/v1/users/{user_id}"]


def test_other_machines_are_served_only_with_keys(database: Database, database_url: str, tmp_path: Path) -> None:
    refused = command_line.ended(
        command_line.start(["serve", "--host", EVERYWHERE, "--port", "0"], tmp_path, DATABASE_URL=database_url)
    )
    assert refused.code == 1
    assert "There is no key" in refused.err
    made = command_line.ended(
        command_line.start(["keys", "create", "shop", "--scope", "read"], tmp_path, DATABASE_URL=database_url)
    )
    token = made.out.strip()
    assert re.fullmatch(r"lim_[0-9a-f]{12}_\S{43}", token)
    process = command_line.start(
        ["serve", "--host", EVERYWHERE, "--port", "0"],
        tmp_path,
        DATABASE_URL=database_url,
    )
    try:
        url = _url(process).replace(EVERYWHERE, "127.0.0.1")
        assert _answer(f"{url}/v1/items").status_code == 401
        assert _answer(f"{url}/v1/items", headers={"Authorization": f"Bearer {token}"}).status_code == 200
    finally:
        process.send_signal(signal.SIGINT)
        assert command_line.ended(process).code == 0


def test_a_port_in_use_is_told(database_url: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = command_line.ended(command_line.start(["serve", "--port", port], tmp_path, DATABASE_URL=database_url))
    assert result.code == 1
    assert f"Port {port} of 127.0.0.1 cannot be listened at" in result.err


def test_keys_on_the_command_line(
    database: Database, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def limner(*args: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["limner", *args])
        with pytest.raises(SystemExit) as caught:
            main()
        said = capsys.readouterr()
        return int(caught.value.code or 0), said.out, said.err

    monkeypatch.setenv("LIMNER_HOME", str(tmp_path))
    monkeypatch.setenv("LIMNER_DATABASE_URL", database_url)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    assert "There is no key" in limner("keys", "list")[2]
    code, token, _ = limner("keys", "create", "shop", "--scope", "read", "--scope", "self:ann")
    assert code == 0
    key_id, secret = token.strip().split("_", 2)[1:]
    _, listed, _ = limner("keys", "list")
    assert key_id in listed
    assert "read, self:ann" in listed
    assert secret not in listed
    assert limner("keys", "revoke", key_id)[0] == 0
    with database.session() as session:
        assert keys.list_keys(session)[0].revoked_at is not None
    assert limner("keys", "revoke", "nothing")[0] == 1
    code, _, said = limner("keys", "create", "shop", "--scope", "everything")
    assert code == 2
    assert "is no scope" in said
