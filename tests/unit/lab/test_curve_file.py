"""Files of curves: what is written, and what is read of our own and of other programs' files."""

from __future__ import annotations

import io
import math
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.errors import ConfigError
from app.lab import curve_file
from app.lab.curve_file import header, read_csv, write_csv, write_parquet
from app.lab.series import Series, SeriesKey, series_of

T0 = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z
S = 1_000_000


def _curve(times: list[int], values: list[float], title: str = "", unit: str = "V", device: str = "m-1") -> Series:
    return series_of(SeriesKey(device, "voltage", unit), times, values, title)


def _text(series: list[Series]) -> str:
    out = io.StringIO()
    write_csv(out, series)
    return out.getvalue()


def _read(folder: Path, text: str | bytes, **options: object) -> list[Series]:
    path = folder / "bench 3.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_csv(path, **options)  # type: ignore[arg-type]


def _rows(one: Series) -> list[tuple[int, float]]:
    return list(zip(one.times.tolist(), one.values.tolist(), strict=True))


# ---- out


def test_a_file_by_hand() -> None:
    voltage = _curve([T0, T0 + S], [230.5, 231], "DC voltage")
    current = _curve([T0 + 1, T0 + S], [-0.1, 1e-9], unit="A", device="dcbm")
    assert _text([voltage, current]) == (
        "time_utc,DC voltage [V] (m-1),voltage [A] (dcbm)\n"
        "2026-01-01T00:00:00.000000Z,230.5,\n"
        "2026-01-01T00:00:00.000001Z,,-0.1\n"
        "2026-01-01T00:00:01.000000Z,231.0,1e-09\n"
    )


def test_no_curve_is_a_header() -> None:
    assert _text([]) == "time_utc\n"
    assert _text([_curve([], [])]) == "time_utc,voltage [V] (m-1)\n"


def test_a_title_breaks_no_line_and_runs_in_no_spreadsheet(tmp_path: Path) -> None:
    odd = [_curve([T0], [1], title) for title in ('a,b "c"', "two\nlines", "=1+1", "'=1", "L1 (sum) [x]")]
    names = header(odd)
    assert names[1:] == [
        'a,b "c" [V] (m-1)', "two lines [V] (m-1)", "'=1+1 [V] (m-1)", "''=1 [V] (m-1)", "L1 (sum) [x] [V] (m-1)",
    ]  # fmt: skip
    found = _read(tmp_path, _text(odd))
    assert [one.title for one in found] == ['a,b "c"', "two lines", "=1+1", "'=1", "L1 (sum) [x]"]
    assert {one.key.device for one in found} == {"m-1"}


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "curves.csv"
    write_csv(path, [_curve([T0], [1])])
    before = path.read_bytes()
    assert before == _text([_curve([T0], [1])]).encode()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(curve_file, "_blocks_of", fail)
    with pytest.raises(OSError, match="No space left"):
        write_csv(path, [_curve([T0], [2])])
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(FileNotFoundError):
        write_csv(tmp_path / "missing" / "curves.csv", [])


# ---- round trip

words = st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"]), min_size=1, max_size=8)
numbers = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def curves(draw: st.DrawFn) -> list[Series]:
    found: list[Series] = []
    for place in range(draw(st.integers(1, 4))):
        times = draw(
            st.lists(st.integers(T0 - 50, T0 + 50) | st.integers(-6 * 10**16, 10**17), min_size=1, max_size=12)
        )
        values = draw(st.lists(numbers, min_size=len(times), max_size=len(times)))
        title = " ".join(draw(st.lists(words, min_size=1, max_size=3)))
        unit = draw(words.filter(lambda text: not set("[]") & set(text)) | st.just(""))
        found.append(_curve(times, values, f"{title} {place}", unit, draw(words)))
    return found


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(series=curves(), rows=st.sampled_from([1, 3, 1 << 15]), chars=st.sampled_from([300, 1 << 22]))
def test_what_was_written_is_read_again(
    series: list[Series], rows: int, chars: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curve_file, "_WRITE_ROWS", rows)
    monkeypatch.setattr(curve_file, "_READ_CHARS", chars)
    path, notes = tmp_path / "curves.csv", list[str]()
    write_csv(path, series)
    found = read_csv(path, notes=notes)
    assert [(one.key.device, one.title, one.key.unit) for one in found] == [
        (one.key.device, one.title, one.key.unit) for one in series
    ]
    for one, again in zip(series, found, strict=True):
        assert (again.key.name, _rows(again)) == (one.title, _rows(one))
    assert notes == []


def test_curves_of_one_name_stay_apart(tmp_path: Path) -> None:
    found = _read(tmp_path, _text([_curve([T0], [1]), _curve([T0], [2]), _curve([T0], [3])]))
    assert [(one.title, one.values.tolist()) for one in found] == [
        ("voltage", [1.0]), ("voltage (2)", [2.0]), ("voltage (3)", [3.0]),
    ]  # fmt: skip


# ---- in: other programs' files


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("time,U [V],I (A)\n2026-01-01T00:00:00Z,1.5,2\n2026-01-01T01:00:01+01:00,2.5,\n", ""),
        ("time;U [V];I (A)\r\n2026-01-01 00:00:00;1,5;2\r\n2026-01-01 00:00:01;2,5;\r\n", "read as UTC"),
        ("Timestamp\tU [V]\tI (A)\n1767225600\t1,5\t2\n1767225601\t2,5\tn/a", "read as s since 1970"),
        ("sep=;\n# bench 3\n\nepoch_ms;U [V];I (A);\n1767225600000;1.5;2;\n\n1767225601000;2.5;NaN;\n", "as ms since"),
        ("time [us],U [V],I (A)\n1767225600000000,1.5,2\n1767225601000000,2.5,OL\n", "as us since"),
        ('U [V],Time,I (A)\n"1.5","1767225600000000000","2"\n2.5,1767225601000000000,\n', "as ns since"),
        ("\ufefftime,U [V],I (A),remark\n2026-01-01T00:00:00Z,1.5,2,start\n2026-01-01T00:00:01Z,2.5,,\n", "remark"),
    ],
)
def test_one_table_in_many_dialects(tmp_path: Path, text: str, said: str) -> None:
    notes: list[str] = []
    voltage, current = _read(tmp_path, text, notes=notes)
    assert (voltage.key, current.key) == (SeriesKey("bench 3", "U", "V"), SeriesKey("bench 3", "I", "A"))
    assert (_rows(voltage), _rows(current)) == ([(T0, 1.5), (T0 + S, 2.5)], [(T0, 2.0)])
    assert [note for note in notes if said in note] == notes
    assert bool(notes) == bool(said)


@pytest.mark.parametrize(("head", "step"), [("t", S), ("time [ms]", 1000), ("t (min)", 60 * S), ("elapsed_us", 1)])
def test_times_from_a_start(tmp_path: Path, head: str, step: int) -> None:
    notes: list[str] = []
    (one,) = _read(tmp_path, f"{head};U\n-1;10\n0;20\n1,5;30\n", start_us=T0, notes=notes)
    assert _rows(one) == [(T0 - step, 10.0), (T0, 20.0), (T0 + round(1.5 * step), 30.0)]
    assert (one.key.unit, len(notes)) == ("", 1)
    assert "2026-01-01T00:00:00Z" in notes[0]


def test_the_zone_of_times_without_one_is_said(tmp_path: Path) -> None:
    notes: list[str] = []
    text = "time,U\n2026-07-01T12:00:00,1\n"
    (one,) = _read(tmp_path, text, zone=ZoneInfo("Europe/Berlin"), notes=notes)
    assert datetime.fromtimestamp(one.times[0] / S, UTC).isoformat() == "2026-07-01T10:00:00+00:00"
    assert notes == ["The times name no zone; they were read as Europe/Berlin."]


def test_seconds_with_six_decimals_keep_them(tmp_path: Path) -> None:
    (one,) = _read(tmp_path, "time,U\n1767225600.000001,1\n1767225600.999999,2\n")
    assert one.times.tolist() == [T0 + 1, T0 + 999_999]


def test_a_file_without_a_header(tmp_path: Path) -> None:
    notes: list[str] = []
    found = _read(tmp_path, "2026-01-01T00:00:00Z,1.5,2\n2026-01-01T00:00:01Z,2.5,3\n", notes=notes)
    assert [(one.title, one.values.tolist()) for one in found] == [("column 2", [1.5, 2.5]), ("column 3", [2.0, 3.0])]
    assert notes == ["The file has no header; the curves are named by their columns."]


@pytest.mark.parametrize(("encoding", "said"), [("utf-8", 0), ("utf-16", 0), ("cp1252", 1)])
def test_encodings(tmp_path: Path, encoding: str, said: int) -> None:
    notes: list[str] = []
    (one,) = _read(tmp_path, "time,Wärme [°C]\n2026-01-01T00:00:00Z,1\n".encode(encoding), notes=notes)
    assert (one.title, one.key.unit, len(notes)) == ("Wärme", "°C", said)


def test_rows_out_of_order_are_put_in_order_and_this_is_said(tmp_path: Path) -> None:
    notes: list[str] = []
    (one,) = _read(tmp_path, "time,U\n1767225601,1\n1767225600,2\n1767225601,3\n", notes=notes)
    assert _rows(one) == [(T0, 2.0), (T0 + S, 1.0)]
    assert any(note.startswith("1 rows are not later") for note in notes)


def test_values_that_are_no_number_are_no_samples(tmp_path: Path) -> None:
    cells = ["", " ", "nan", "NaN", "inf", "-inf", "null", "1e999", " 7 ", "+.5", "-1.e2"]
    rows = "".join(f"{1767225600 + index},{cell}\n" for index, cell in enumerate(cells))
    (one,) = _read(tmp_path, "time,U\n" + rows)
    assert one.values.tolist() == [7.0, 0.5, -100.0]


def test_a_second_time_and_a_text_are_left_out(tmp_path: Path) -> None:
    notes: list[str] = []
    text = "time,local,U,state\n2026-01-01T00:00:00Z,2026-01-01T01:00:00,1,run\n"
    (one,) = _read(tmp_path, text, notes=notes)
    assert one.title == "U"
    assert notes == [
        "The column local holds text ('2026-01-01T01:00:00' in line 2); it was left out.",
        "The column state holds text ('run' in line 2); it was left out.",
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("time,U\n1767225600,1\n1767225601,x\n", "line 3, column U: 'x' is no number (expected a number with"),
        ("time,U\n1767225600,1\n1767225601,1_0\n", "line 3, column U: '1_0' is no number"),
        ('time,U\n1767225600,"1,5"\n', "line 2, column U: '1,5' is no number"),
        ("time,U\n\n# note\n1767225600,1\nnoon,2\n", "line 5, column time: 'noon' is no time"),
        ("time,U\n2026-01-01T00:00:00.000000Z,1\n2026-13-01T00:00:00.000000Z,1\n", "line 3, column time"),
        ("time,U\n31.12.2025 23:00,1\n", "line 2, column time: '31.12.2025 23:00' is no time (expected ISO 8601"),
        ("time,U\n1767225600,1\n1e40,1\n", "line 3, column time: '1e40' is no time"),
        ("time,U\n1767225600,1\n1_0,1\n", "line 3, column time: '1_0' is no time"),
        ("time,U\n1767225600,1\n,1\n", "line 3, column time: '' is no time"),
        ("time,U,I\n1767225600,1,2\n1767225601,1\n1767225602,1,2,3\n", "line 3: holds 2 cells (expected 3"),
        ("time,U,I\n1767225600,1,2\n1767225601,1,2,3\n1767225602,1\n", "line 3: holds 4 cells (expected 3"),
        ("time;U\n1767225600;1,5\n1767225601;2.5\n", "line 3, column U: '2.5' stands there, while a number"),
        ("time;U;I\n1767225600;1,5;2.5\n", "line 2, column I: '2.5' stands there, while a number before has a comma"),
        ("time;U\n1767225600;1.234,5\n", "line 2, column U: '1.234,5' has a comma and a dot"),
        ('time,U\n1767225600,"1\n', "line 2: is not CSV"),
        ("hello\nworld\n", "line 1: holds one column (expected a column of times"),
        ("time,device,quantity,title,unit,value\n", "line 1: is a list with one sample a line"),
        ("time,U\n", "holds no sample"),
        ("time,state\n1767225600,run\n", "holds no sample"),
        ("", "holds no sample"),
        ("# nothing\n\n", "holds no sample"),
        (b"\x00\x01\x02", "is not text"),
        (b"\xff\xfet\xd8", "is not text in one encoding"),
        ("a," * 600, "line 1: holds more than 512 columns"),
    ],
)  # fmt: skip
def test_faults_are_named_with_their_place(tmp_path: Path, text: str | bytes, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _read(tmp_path, text)
    assert words in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "bench 3.csv"))


def test_size_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "time,U\n" + "".join(f"{1767225600 + index},1\n" for index in range(40))
    with pytest.raises(ConfigError, match="is larger than 100 bytes"):
        _read(tmp_path, text, max_bytes=100)
    monkeypatch.setattr(curve_file, "MAX_CELLS", 40)
    monkeypatch.setattr(curve_file, "_READ_CHARS", 64)
    with pytest.raises(ConfigError, match=r"line 2\d: is beyond 40 cells"):
        _read(tmp_path, text)
    monkeypatch.setattr(curve_file, "MAX_LINE", 100)
    with pytest.raises(ConfigError, match="line 2: is longer than 100 characters"):
        _read(tmp_path, "time,U\n" + "1" * 500)


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_csv(tmp_path / "missing.csv")
    with pytest.raises(ConfigError, match="is no file"):
        read_csv(tmp_path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.text(st.sampled_from('0123456789.,;\t\n"#eZT:-+ _ax[]()µ'), max_size=200) | st.binary(max_size=80))
def test_noise_is_read_or_refused_in_words(data: str | bytes, tmp_path: Path) -> None:
    try:
        found = _read(tmp_path, data)
    except ConfigError:
        return
    assert all(len(one) for one in found)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.sampled_from(["5,1,2", "6,,2", '7,"1",2', "# note", "", "8,1,nan", "9,1,2,", "10, 1 ,-3"]), max_size=12
    ),
    chars=st.integers(20, 60),
)
def test_the_cut_into_blocks_changes_nothing(
    rows: list[str], chars: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "\n".join(["t,U,I", "0,0,0", *rows])
    whole = [(one.key, _rows(one)) for one in _read(tmp_path, text)]
    monkeypatch.setattr(curve_file, "_READ_CHARS", chars)
    cut = [(one.key, _rows(one)) for one in _read(tmp_path, text)]
    monkeypatch.undo()
    assert cut == whole


# ---- Parquet


def test_parquet_holds_the_same_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="the extra parquet brings pyarrow")
    monkeypatch.setattr(curve_file, "_WRITE_ROWS", 2)
    path = tmp_path / "curves.parquet"
    voltage, current = _curve([T0, T0 + S], [230.5, 231], "U"), _curve([T0 + 1, T0 + S], [-0.1, 0], "I", "A")
    write_parquet(path, [voltage, current, voltage])
    table = parquet.read_table(path)
    assert table.column_names == ["time_utc", "U [V] (m-1)", "I [A] (m-1)", "U [V] (m-1) (2)"]
    assert str(table.schema.field("time_utc").type) == "timestamp[us, tz=UTC]"
    assert table["time_utc"].cast("int64").to_pylist() == [T0, T0 + 1, T0 + S]
    assert table["U [V] (m-1)"].to_pylist() == [230.5, None, 231.0]
    assert table["I [A] (m-1)"].to_pylist() == [None, -0.1, 0.0]
    metadata = table.schema.field("I [A] (m-1)").metadata
    assert {key: metadata[key] for key in (b"device", b"quantity", b"unit")} == {
        b"device": b"m-1", b"quantity": b"voltage", b"unit": b"A",
    }  # fmt: skip
    assert list(tmp_path.iterdir()) == [path]


def test_parquet_of_no_curve(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="the extra parquet brings pyarrow")
    write_parquet(tmp_path / "none.parquet", [])
    assert parquet.read_table(tmp_path / "none.parquet").num_rows == 0


def test_parquet_without_its_package_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(curve_file, "import_module", missing)
    with pytest.raises(ConfigError, match=r"install the extra meterwright\[parquet\], or write CSV"):
        write_parquet(tmp_path / "curves.parquet", [])
    assert list(tmp_path.iterdir()) == []


# ---- size


def test_a_long_table_comes_back(tmp_path: Path) -> None:
    times = T0 + np.arange(50_000, dtype=np.int64) * 100_000
    every = [
        Series(SeriesKey("m-1", f"q{index}", "W"), times[index :: index + 1], np.sqrt(times[index :: index + 1]))
        for index in range(4)
    ]
    path = tmp_path / "long.csv"
    write_csv(path, every)
    found = read_csv(path)
    assert [one.key for one in found] == [one.key for one in every]
    for one, again in zip(every, found, strict=True):
        np.testing.assert_array_equal(one.times, again.times)
        np.testing.assert_array_equal(one.values, again.values)
    assert not any(math.isnan(value) for value in found[3].values)
