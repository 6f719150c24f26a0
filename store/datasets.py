"""Public logs for trials and evaluation: fetched when asked for, never part of this package.

MovieLens-100K (F. M. Harper and J. A. Konstan, 2015, doi:10.1145/2827872) may be used for research;
GroupLens forbids passing it on, and commercial use without leave. So each user fetches it for themselves.
"""

import csv
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from store.errors import DownloadError
from store.packages import WheelFiles, fetch, sha256_of
from store.supervisor_main import wait_lock

ML_100K = WheelFiles(
    packages=("recbole==1.2.1",),
    members=tuple(f"recbole/dataset_example/ml-100k/ml-100k.{part}" for part in ("inter", "item", "user")),
    sha256={
        "ml-100k.inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
        "ml-100k.item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
        "ml-100k.user": "4f670007d9cfbeb9807e757209af1555b9bcc186bde25e767f67cb67c6dd5972",
    },
)

_DAT = "::"  # between the fields of GroupLens' older files
_TITLE_AND_YEAR = re.compile(r"(?P<title>.*\S)\s*\((?P<year>\d{4})\)\s*")
_CLEAN = ("items.csv", "events.csv", "users.csv")
_YEAR = re.compile(r"(18|19|20)\d\d")
_OTHER_FETCH_S = 600.0

Row = dict[str, str]


def fetch_ml_100k(home: Path, progress: Callable[[int, int], None] | None = None) -> Path:
    """Fetch MovieLens-100K and write it as files that `limner ingest` reads.

    A second call finds by their hashes what was fetched before, and fetches nothing.

    Args:
        home: The data directory.
        progress: Called with (packages done, packages in all).

    Returns:
        The folder of `items.csv`, `events.csv` and `users.csv`, and of the files that they were made from.

    Raises:
        DownloadError: The files could not be fetched, or are not the pinned ones.
    """
    folder = home / "data" / "ml-100k"
    folder.mkdir(parents=True, exist_ok=True)
    lock = wait_lock(folder / ".lock", _OTHER_FETCH_S)
    if lock is None:
        raise DownloadError(f"Another process has been fetching into {folder} for {_OTHER_FETCH_S:.0f} s.")
    try:
        if not _as_pinned(folder):
            fetch(ML_100K, folder, progress)
        clean_ml_100k(folder)  # in a third of a second, so what an older version wrote does not stay
    finally:
        os.close(lock)
    return folder


def clean_ml_100k(folder: Path) -> None:
    """Write the clean files of a folder from the `ml-100k.*` files in it."""
    makers = (("ml-100k.item", _item), ("ml-100k.inter", _event), ("ml-100k.user", _user))
    for name, (source, make) in zip(_CLEAN, makers, strict=True):
        _write(folder / name, map(make, _read(folder / source)))


def clean_ml_1m(source: Path, folder: Path) -> None:
    """Write MovieLens-1M as `items.csv` and `events.csv`, which `limner ingest` reads.

    Args:
        source: The folder of `ratings.dat` and `movies.dat`, as GroupLens' archive has them.
        folder: Where the files go.

    Raises:
        DownloadError: They are not there, or a line of them is not of the form.
    """
    for name in ("ratings.dat", "movies.dat"):
        if not (source / name).is_file():
            raise DownloadError(
                f"{source} holds no {name}. Fetch ml-1m.zip from grouplens.org, unpack it, and give its folder."
            )
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "items.csv", map(_dat_item, _read_dat(source / "movies.dat", 3)))
    _write(folder / "events.csv", map(_dat_event, _read_dat(source / "ratings.dat", 4)))


def _read_dat(path: Path, fields: int) -> Iterator[list[str]]:
    with path.open(encoding="latin-1") as file:
        for number, line in enumerate(file, 1):
            row = line.rstrip("\r\n").split(_DAT)
            if len(row) != fields:
                raise DownloadError(f"Line {number} of {path} has {len(row)} fields, not {fields}: fetch it again.")
            yield row


def _dat_item(row: list[str]) -> Row:
    item_id, title, genres = row
    found = _TITLE_AND_YEAR.fullmatch(title)
    return {
        "item_id": item_id,
        "title": found["title"] if found else title,
        "categories": genres,
        "attributes.year": found["year"] if found else "",
        "attributes.noun": "films",
    }


def _dat_event(row: list[str]) -> Row:
    return dict(zip(("user_id", "item_id", "value", "ts"), row, strict=True)) | {"type": "rating"}


def _as_pinned(folder: Path) -> bool:
    return all((folder / n).is_file() and sha256_of(folder / n) == h for n, h in ML_100K.sha256.items())


def _read(path: Path) -> Iterator[Row]:
    """Yield the rows of a tab-separated file whose header is like `movie_title:token_seq`."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        names = [column.split(":")[0] for column in next(rows)]
        for row in rows:
            yield dict(zip(names, row, strict=True))


def _item(row: Row) -> Row:
    genres = [genre for genre in row["class"].split() if genre != "unknown"]
    year = row["release_year"]
    return {
        "item_id": row["item_id"],
        "title": row["movie_title"].strip(),
        "categories": "|".join(genres),
        "attributes.year": year if _YEAR.fullmatch(year) else "",
        "attributes.noun": "films",
    }


def _event(row: Row) -> Row:
    return {
        "user_id": row["user_id"],
        "item_id": row["item_id"],
        "type": "rating",
        "ts": row["timestamp"],
        "value": row["rating"],
    }


def _user(row: Row) -> Row:
    return {"user_id": row["user_id"], **{f"attributes.{n}": row[n] for n in ("age", "gender", "occupation")}}


def _write(path: Path, rows: Iterable[Row]) -> None:
    new = path.with_name(path.name + ".new")
    with new.open("w", encoding="utf-8", newline="") as file:
        found = iter(rows)
        first = next(found)
        writer = csv.DictWriter(file, list(first), lineterminator="\n")
        writer.writeheader()
        writer.writerow(first)
        writer.writerows(found)
    new.replace(path)
