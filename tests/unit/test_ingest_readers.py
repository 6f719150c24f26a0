"""Readers: the same rows from every format, physical line numbers, and one bad row at a time."""

import csv
import gzip
import io
from datetime import UTC, datetime
from functools import partial

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from store.errors import IngestError
from store.ingest import csv_reader
from store.ingest.columns import read_mapping
from store.ingest.csv_reader import _read_plain, _Rows
from store.ingest.readers import file_format_of, open_reader
from store.ingest.streams import MAX_RECORD_BYTES, Block, line_blocks

HEAD = "user_id,type,ts,text\n"


def read(path, kind="events", mapping=(), file_format=None):
    """All rows by line, all rejects, and the columns left out."""
    rows, rejects = {}, []
    with open_reader(path, file_format) as reader:
        plan = read_mapping(kind, mapping).plan(reader.header)
        for batch in reader.batches(plan):
            assert len(batch.frame) == len(batch.lines)
            rows |= dict(zip(batch.lines.tolist(), batch.frame.rows(named=True), strict=True))
            rejects += batch.rejects
        return rows, rejects, plan.left_out or reader.extra_columns


def write(tmp_path, data, name="log.csv"):
    path = tmp_path / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def test_csv_plain_and_with_bom_crlf_and_gzip(tmp_path):
    text = HEAD + "u1,view,1,a\nu2,view,2,\n"
    forms = [text.encode(), b"\xef\xbb\xbf" + text.encode(), text.replace("\n", "\r\n").encode()]
    forms.append(gzip.compress(text.encode()))
    for data in forms:
        rows, rejects, _ = read(write(tmp_path, data))
        assert [list(row.values()) for row in rows.values()] == [
            ["u1", "view", "1", "a"],
            ["u2", "view", "2", ""],
        ]
        assert list(rows) == [2, 3]
        assert not rejects


def test_tsv(tmp_path):
    rows, _, _ = read(write(tmp_path, HEAD.replace(",", "\t") + 'u1\tview\t1\t"a\tb"\n', "log.tsv"))
    assert rows[2]["text"] == "a\tb"


def test_csv_physical_lines_behind_quoted_newlines_and_empty_lines(tmp_path):
    rows, rejects, _ = read(write(tmp_path, HEAD + 'u1,view,1,"a\n\nb"\n\nu2,view,2,c\nu3,view\nu4,view,4,d'))
    assert {line: row["user_id"] for line, row in rows.items()} == {2: "u1", 6: "u2", 8: "u4"}
    assert rows[2]["text"] == "a\n\nb"
    assert [(reject.line, reject.reason) for reject in rejects] == [(7, "expected 4 columns, found 2")]


@pytest.mark.parametrize(
    ("last", "reason"),
    [("d", "a quote opened here is not closed"), ('5" d', "a quote opened here is closed in the middle")],
)
def test_csv_open_quote_rejects_its_line_only(tmp_path, last, reason):
    data = HEAD + f'u1,view,1,a\nu2,view,2,"b\nu3,view,3,c\nu4,view,4,{last}\n'
    rows, rejects, _ = read(write(tmp_path, data))
    assert [row["user_id"] for row in rows.values()] == ["u1", "u3", "u4"]
    assert [reject.line for reject in rejects] == [3]
    assert rejects[0].reason.startswith(reason)


def test_csv_open_quote_closed_by_a_later_row_loses_no_row_unseen(tmp_path):
    rows, rejects, _ = read(write(tmp_path, HEAD + 'u1,view,1,"b\nu2,view,2,c\nu3,view,3,"d"\nu4,view,4,e\n'))
    assert [row["user_id"] for row in rows.values()] == ["u2", "u3", "u4"]
    assert [reject.line for reject in rejects] == [2]


def test_csv_bytes_that_are_not_utf8(tmp_path):
    data = HEAD.encode() + b"u1,view,1,a\nu2,view,2,caf\xe9\nu3,view,3,\xc3\xa9\n"
    rows, rejects, _ = read(write(tmp_path, data))
    assert [row["text"] for row in rows.values()] == ["a", "\u00e9"]
    assert rejects[0][:4] == (3, "text", "caf\\xe9", "not UTF-8")


def test_csv_bad_bytes_in_a_column_left_out_do_no_harm(tmp_path):
    data = b'user_id,type,ts,note\nu1,view,1,\xe9\nu2,view,2,"\xe9"\n'
    rows, rejects, left_out = read(write(tmp_path, data))
    assert len(rows) == 2
    assert not rejects
    assert left_out == ("note",)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"\xef\xbb\xbf", "empty"),
        (b"\n\n", "empty"),
        ("user_id,type\n".encode("utf-16"), "UTF-16"),
        (b"user\xe9,type\n", "header line is not UTF-8"),
        (b'"user_id,type\n', "header line cannot be read"),
        (b"a,b\n1,2\n", "nothing fills the field 'user_id'"),
    ],
)
def test_csv_files_that_are_refused(tmp_path, data, words):
    with pytest.raises(IngestError, match=words):
        read(write(tmp_path, data))


def test_csv_header_alone_is_no_rows(tmp_path):
    assert read(write(tmp_path, HEAD))[:2] == ({}, [])
    assert read(write(tmp_path, HEAD.rstrip()))[:2] == ({}, [])


def test_a_line_without_end_is_skipped_in_bounded_memory(tmp_path):
    long = "x" * (MAX_RECORD_BYTES + 9_000_000)
    rows, rejects, _ = read(write(tmp_path, HEAD + f"u1,view,1,a\nu2,view,2,{long}\nu3,view,3,c\n"))
    assert [(line, row["user_id"]) for line, row in rows.items()] == [(2, "u1"), (4, "u3")]
    assert [(reject.line, reject.reason) for reject in rejects] == [(3, "line longer than 16 MB")]


cells = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\r"), max_size=6)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(cells, cells, cells), max_size=12), st.integers(5, 60))
def test_csv_gives_back_what_was_written_however_it_is_cut(tmp_path, monkeypatch, table, size):
    monkeypatch.setattr(csv_reader, "line_blocks", partial(line_blocks, size=size))
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["user_id", "type", "ts"])
    starts = []
    for row in table:
        starts.append(out.getvalue().count("\n") + 1)
        writer.writerow(row)
    rows, rejects, _ = read(write(tmp_path, out.getvalue()))
    assert not rejects
    assert [tuple(row.values()) for row in rows.values()] == table
    assert list(rows) == starts


@settings(deadline=None)
@given(st.lists(st.lists(st.sampled_from(["a", "", "\u00e9", " ", "'", "\\", "5"]), min_size=3, max_size=3)))
def test_the_fast_and_the_exact_way_agree(table):
    data = "".join(",".join(row) + "\n" for row in table).encode()
    wanted = {"third": 2, "first": 0}
    rows = _Rows(3, wanted, ",")
    fast = _read_plain(data, rows)
    assert fast is not None
    assert rows.read(Block(1, data, (), last=True)) is None
    exact = rows.batch((), 0)
    assert fast.equals(exact.frame)
    assert exact.lines.tolist() == list(range(1, len(table) + 1))


@pytest.mark.parametrize("data", [b"a,b\n\nc,d\n", b"\na,b\n", b"a\rb,c\n", b"a\n", b"a,b,c\n", b"a,\xff\n"])
def test_the_fast_way_declines_what_is_out_of_the_ordinary(data):
    assert _read_plain(data, _Rows(2, {"x": 0, "y": 1}, ",")) is None


def test_json_lines(tmp_path):
    data = (
        '{"user_id": 17, "type": "view", "ts": 1, "value": 4.0, "context": {"a": [1]}, "page": 3}\n'
        "\n"
        '{"user_id": "u2", "type": "view"\n'
        '{"user_id": ["u3"], "type": "view", "ts": 1}\n'
        '{"user_id": "u4", "type": true, "ts": 1}\n'
        "[1]\n"
        '{"user_id": "\\ud800", "type": "view", "ts": 1}\n'
        '{"user_id": "u7", "type": "view", "ts": 1, "value": NaN}\n'
        '{"user_id": "u8", "type": "vi'
    )
    rows, rejects, left_out = read(write(tmp_path, data, "log.jsonl"))
    assert list(rows) == [1]
    assert rows[1]["user_id"] == "17"
    assert rows[1]["value"] == "4.0"
    assert rows[1]["context"] == '{"a":[1]}'
    assert left_out == ("page",)
    assert [(reject.line, reject.column) for reject in rejects] == [
        (3, ""),
        (4, "user_id"),
        (5, "type"),
        (6, ""),
        (7, ""),
        (8, ""),
        (9, ""),
    ]
    assert rejects[1].reason == "wrong type: a list"
    assert all(reject.reason.startswith("not JSON") for reject in (rejects[0], *rejects[4:]))


def test_json_array_and_empty_file_are_refused(tmp_path):
    with pytest.raises(IngestError, match="JSON array"):
        read(write(tmp_path, '[{"user_id": 1}]', "log.jsonl"))
    with pytest.raises(IngestError, match="empty"):
        read(write(tmp_path, "", "log.jsonl"))


def test_parquet_types_become_the_text_of_the_other_formats(tmp_path):
    moment = datetime(2024, 7, 1, 12, 30, 0, 5, tzinfo=UTC)
    table = pa.table(
        {
            "user_id": pa.array([1, 2], pa.int32()),
            "type": pa.array(["view", None]).dictionary_encode(),
            "ts": pa.array([moment, None], pa.timestamp("us", "Europe/Paris")),
            "value": pa.array([0.1, float("nan")], pa.float32()),
            "text": pa.array([b"caf\xc3\xa9", b"\xe9"], pa.binary()),
            "context": pa.array([{"a": 1, "b": None}, None]),
        }
    )
    pq.write_table(table, tmp_path / "log.parquet")
    rows, rejects, _ = read(tmp_path / "log.parquet")
    assert rows == {
        1: {
            "user_id": "1",
            "type": "view",
            "ts": "2024-07-01T14:30:00.000005+02:00",
            "value": "0.1",
            "text": "caf\u00e9",
            "context": '{"a":1}',
        }
    }
    assert [reject[:4] for reject in rejects] == [(2, "text", "\\xe9", "not UTF-8")]


def test_a_parquet_map_is_an_object_also_when_it_is_empty(tmp_path):
    pairs = pa.array([[("by", "Mann"), ("year", None)], [], None], pa.map_(pa.string(), pa.string()))
    pq.write_table(
        pa.table({"item_id": ["a", "b", "c"], "title": ["A", "B", "C"], "attributes": pairs}),
        tmp_path / "items.parquet",
    )
    rows, rejects, _ = read(tmp_path / "items.parquet", "items")
    assert [row["attributes"] for row in rows.values()] == ['{"by":"Mann"}', "{}", None]
    assert not rejects


def test_parquet_string_column_with_bad_bytes(tmp_path):
    bad = pa.StringArray.from_buffers(1, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xe9"))
    table = pa.table({"user_id": bad, "type": ["view"], "ts": pa.array([1])})
    pq.write_table(table, tmp_path / "log.parquet")
    rows, rejects, _ = read(tmp_path / "log.parquet")
    assert not rows
    assert rejects[0].column == "user_id"


def test_parquet_naive_and_utc_times(tmp_path):
    moment = datetime(2024, 7, 1, 12, 30)
    frame = pl.DataFrame({"user_id": ["u"], "type": ["view"], "ts": [moment]})
    frame.write_parquet(tmp_path / "naive.parquet")
    frame.with_columns(pl.col("ts").dt.replace_time_zone("UTC")).write_parquet(tmp_path / "utc.parquet")
    assert read(tmp_path / "naive.parquet")[0][1]["ts"] == "2024-07-01T12:30:00.000000"
    assert read(tmp_path / "utc.parquet")[0][1]["ts"] == "2024-07-01T12:30:00.000000Z"


def test_parquet_that_is_cut_or_of_the_wrong_type(tmp_path):
    path = tmp_path / "log.parquet"
    pl.DataFrame({"user_id": ["u"] * 1000, "type": "view", "ts": 1}).write_parquet(path)
    whole = path.read_bytes()
    path.write_bytes(gzip.compress(whole))
    assert len(read(path)[0]) == 1000
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(IngestError, match="not a whole Parquet file"):
        read(path)
    path.write_bytes(b"")
    with pytest.raises(IngestError, match="empty"):
        read(path)
    pl.DataFrame({"user_id": [["u"]], "type": ["view"], "ts": [1]}).write_parquet(path)
    with pytest.raises(IngestError, match="'user_id' has the wrong type"):
        read(path)


def test_gzip_cut_or_damaged(tmp_path):
    packed = gzip.compress((HEAD + "u1,view,1,a\n" * 1000).encode())
    with pytest.raises(IngestError, match="cut off"):
        read(write(tmp_path, packed[:-20]))
    broken = bytearray(packed)
    broken[-8] ^= 255
    with pytest.raises(IngestError, match="damaged"):
        read(write(tmp_path, bytes(broken)))


def test_formats_by_name(tmp_path):
    assert file_format_of(tmp_path / "a.CSV.gz") == "csv"
    assert file_format_of(tmp_path / "v1.2.ndjson") == "jsonl"
    with pytest.raises(IngestError, match=r"cannot tell the format of log\.txt"):
        file_format_of(tmp_path / "log.txt")
    assert len(read(write(tmp_path, HEAD + "u,view,1,\n", "log.txt"), file_format="csv")[0]) == 1
    with pytest.raises(IngestError, match="cannot read"):
        read(tmp_path / "missing.csv")
