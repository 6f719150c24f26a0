"""The fields of each kind of record, and which column of a file fills which field.

A column fills the field of the same name. `--map` says otherwise, in one of two forms:

* `COLUMN=FIELD`   the column fills this field (`rating=value`, `director=attributes.director`);
* `FIELD==VALUE`   the field is this constant in every row (`type==rating`).

An explicit form goes before the field's own name. Columns that fill nothing are left out and reported.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import polars as pl

from store.errors import IngestError

Kind = Literal["events", "items", "users"]

FIELDS: dict[str, tuple[str, ...]] = {
    "events": ("event_id", "user_id", "item_id", "type", "ts", "value", "text", "context"),
    "items": (
        "item_id",
        "title",
        "categories",
        "attributes",
        "description",
        "price",
        "image_caption",
        "created_at",
    ),
    "users": ("user_id", "attributes", "consent", "language", "tz"),
}
REQUIRED: dict[str, tuple[str, ...]] = {
    "events": ("user_id", "type", "ts"),
    "items": ("item_id", "title"),
    "users": ("user_id",),
}
ATTRIBUTE = "attributes."
NESTED = ("context", "attributes", "categories")
FLAGS = ("consent",)


@dataclass(frozen=True)
class Plan:
    """Which column fills which field of one kind, for one file.

    Attributes:
        kind: events, items or users.
        columns: field to column.
        constants: field to the value that it has in every row.
        left_out: columns of the file that fill nothing (unknown in advance for JSON Lines).
    """

    kind: Kind
    columns: dict[str, str]
    constants: dict[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()

    @property
    def wanted(self) -> tuple[str, ...]:
        """The columns to read, each once."""
        return tuple(dict.fromkeys(self.columns.values()))

    @property
    def nested(self) -> frozenset[str]:
        """The columns that may hold lists and objects."""
        return frozenset(c for f, c in self.columns.items() if f in NESTED or f.startswith(ATTRIBUTE))

    @property
    def flags(self) -> frozenset[str]:
        """The columns that may hold true and false."""
        return frozenset(c for f, c in self.columns.items() if f in FLAGS or f.startswith(ATTRIBUTE))

    def column(self, name: str) -> str:
        """What a reader of the file calls this field."""
        return self.columns.get(name, name)

    def fields(self, raw: pl.DataFrame) -> pl.DataFrame:
        """The batch by field; empty text is no text, and a field without a column is null."""
        names = [*FIELDS[self.kind], *(f for f in self.columns if f.startswith(ATTRIBUTE))]
        names += [f for f in self.constants if f not in names]
        return raw.select(self._expression(name) for name in names)

    def _expression(self, name: str) -> pl.Expr:
        if name in self.columns:
            column = pl.col(self.columns[name])
            return pl.when(column != "").then(column).alias(name)
        return pl.lit(self.constants.get(name), dtype=pl.String).alias(name)


@dataclass(frozen=True)
class Mapping:
    """The `--map` arguments of one command, read."""

    kind: Kind
    columns: dict[str, str]
    constants: dict[str, str]

    def plan(self, header: Sequence[str] | None) -> Plan:
        """Fits the mapping to a file's columns (None: not known in advance, as in JSON Lines).

        Raises:
            IngestError: a column is missing or named twice.
        """
        taken = set(self.columns.values())
        names = header if header is not None else FIELDS[self.kind]
        own = {
            name: name
            for name in names
            if _is_field(self.kind, name)
            and name not in self.columns
            and name not in self.constants
            and name not in taken
        }
        columns = {**own, **self.columns}
        if header is not None:
            self._check(header, columns)
        left_out = tuple(name for name in header or () if name not in columns.values())
        return Plan(self.kind, columns, self.constants, left_out)

    def _check(self, header: Sequence[str], columns: dict[str, str]) -> None:
        found = f"the file's columns are: {', '.join(header)}"
        for column in columns.values():
            if column not in header:
                raise IngestError(f"the file has no column {column!r}; {found}")
            if list(header).count(column) > 1:
                raise IngestError(f"the file has more than one column {column!r}; {found}")
        for name in REQUIRED[self.kind]:
            if name not in columns and name not in self.constants:
                raise IngestError(
                    f"missing column: nothing fills the field {name!r}; {found}. Name the column with "
                    f"--map COLUMN={name}, or give a constant with --map {name}==VALUE. "
                    "(The first line of the file must be a header.)"
                )
        if not columns:
            raise IngestError(f"no column fills any field of {self.kind}; {found}")


def read_mapping(kind: Kind, arguments: Iterable[str]) -> Mapping:
    """Reads `--map` arguments (see the top of this module).

    Raises:
        IngestError: an argument has another form, or names an unknown field or the same field twice.
    """
    columns: dict[str, str] = {}
    constants: dict[str, str] = {}
    for argument in arguments:
        name, equals, value = argument.partition("==")
        target = constants
        if not equals:
            value, equals, name = argument.rpartition("=")
            target = columns
        if not equals or not name or not value:
            raise IngestError(f"--map {argument!r} is neither COLUMN=FIELD nor FIELD==VALUE")
        if not _is_field(kind, name):
            known = ", ".join(FIELDS[kind]) + ("" if kind == "events" else f", {ATTRIBUTE}NAME")
            raise IngestError(f"--map {argument!r}: {kind} have no field {name!r}; the fields are: {known}")
        if name in columns or name in constants:
            raise IngestError(f"--map gives the field {name!r} twice")
        target[name] = value
    return Mapping(kind, columns, constants)


def _is_field(kind: Kind, name: str) -> bool:
    if name in FIELDS[kind]:
        return True
    return kind != "events" and name.startswith(ATTRIBUTE) and len(name) > len(ATTRIBUTE)
