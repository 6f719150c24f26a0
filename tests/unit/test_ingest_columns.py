"""`--map`, and which column fills which field."""

import polars as pl
import pytest

from store.errors import IngestError
from store.ingest.columns import read_mapping


def test_own_names_mapped_columns_and_constants():
    mapping = read_mapping("events", ["rating=value", "type==rating", "a=b=item_id"])
    plan = mapping.plan(["user_id", "a=b", "rating", "ts", "zip", "type"])
    assert plan.columns == {"user_id": "user_id", "ts": "ts", "value": "rating", "item_id": "a=b"}
    assert plan.constants == {"type": "rating"}
    assert plan.left_out == ("zip", "type")
    raw = pl.DataFrame({"user_id": ["u", ""], "ts": ["1", "2"], "rating": ["4", None], "a=b": ["i", "j"]})
    fields = plan.fields(raw)
    assert fields["type"].to_list() == ["rating", "rating"]
    assert fields["user_id"].to_list() == ["u", None]
    assert fields["context"].to_list() == [None, None]


def test_a_mapped_column_does_not_fill_the_field_of_its_own_name():
    plan = read_mapping("items", ["title=item_id", "name=title"]).plan(["title", "name"])
    assert plan.columns == {"item_id": "title", "title": "name"}


def test_attributes_by_name():
    plan = read_mapping("items", ["director=attributes.director"]).plan(
        ["item_id", "title", "director", "attributes.year"]
    )
    assert plan.columns["attributes.director"] == "director"
    assert plan.columns["attributes.year"] == "attributes.year"
    assert {"director", "attributes.year"} <= plan.nested


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["rating"], "neither"),
        (["=value"], "neither"),
        (["rating="], "neither"),
        (["rating=stars"], "no field 'stars'; the fields are: event_id"),
        (["x=attributes.y"], "no field"),
        (["a=value", "b=value"], "twice"),
        (["a=type", "type==view"], "twice"),
    ],
)
def test_wrong_arguments(arguments, words):
    with pytest.raises(IngestError, match=words):
        read_mapping("events", arguments)


@pytest.mark.parametrize(
    ("arguments", "header", "words"),
    [
        ([], ["user_id", "ts"], "nothing fills the field 'type'.*user_id, ts.*--map COLUMN=type"),
        (["stars=value"], ["user_id", "type", "ts"], "no column 'stars'"),
        ([], ["user_id", "type", "ts", "ts"], "more than one column 'ts'"),
        (["user_id==u", "type==view", "ts==0"], ["a"], "no column fills"),
    ],
)
def test_wrong_headers(arguments, header, words):
    with pytest.raises(IngestError, match=words):
        read_mapping("events", arguments).plan(header)
