from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.errors import InputError
from edgekd.files.csv_table import Line, check_names, missing_files, read_table
from edgekd.files.table_text import table_at


def written(folder: Path, content: str | bytes) -> Path:
    table = folder / "table.csv"
    table.write_bytes(content.encode() if isinstance(content, str) else content)
    return table


def line(number: int, **values: str) -> Line:
    return Line(Path("table.csv"), number, values, ",")


@pytest.mark.parametrize(
    "content",
    [
        "path,label\na.wav,tug\n",
        "path,label\r\na.wav,tug\r\n",
        "path,label\ra.wav,tug\r",
        "\ufeffpath,label\na.wav,tug",
        "path;label\na.wav;tug\n",
        "path\tlabel\na.wav\ttug\n",
        " path , label\n a.wav , tug \n",
        '"path","label"\n"a.wav","tug"\n',
        "label,path\ntug,a.wav\n",
        ",path,label\n0,a.wav,tug\n",  # a data frame's row numbers
        "path,label,,\na.wav,tug,,\n,,,\n\n",  # a spreadsheet's empty cells
        "path,label\r\na.wav,tug\r\n\r\n\r\n\x1a",
        "path|label\na.wav|tug\n",
        "Path,LABEL\na.wav,tug\n",
        "Unnamed: 0.1,Unnamed: 0,path,label\n7,7,a.wav,tug\n",
        "index,path,label\n0,a.wav,tug\n",
        "id;path;label\n1;a.wav;tug\n",
        "path,label\na.wav,tug\n".encode("utf-16"),
        "path,label\na.wav,tug\n".encode("utf-16-be"),
        "path,label\na.wav,tug\n".encode("utf-16-le"),
        "path,label\na.wav,tug\n".encode("utf-32"),
    ],
)
def test_a_table_reads_the_same_however_it_was_saved(tmp_path: Path, content: str | bytes) -> None:
    (only,) = read_table(written(tmp_path, content), ("path", "label"), ())
    assert (only.number, only.text("path"), only.text("label")) == (2, "a.wav", "tug")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "cp1252", "latin-1"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_names_are_those_of_every_encoding(tmp_path: Path, encoding: str, separator: str, end: str) -> None:
    content = end.join(("path,label", "Fähre Büsum.wav,Grüße", "b.wav,tug", "")).replace(",", separator)
    lines = read_table(written(tmp_path, content.encode(encoding)), ("path", "label"), ())
    assert [line.text("path") for line in lines] == ["Fähre Büsum.wav", "b.wav"]
    assert lines[0].text("label") == "Grüße"


def test_the_first_line_of_an_excel_file_may_name_the_separator(tmp_path: Path) -> None:
    (only,) = read_table(written(tmp_path, "sep=;\r\npath;label\r\na,b,c.wav;tug\r\n"), ("path", "label"), ())
    assert (only.number, only.text("path")) == (3, "a,b,c.wav")


def test_the_separator_is_the_one_that_gives_the_columns_that_are_needed(tmp_path: Path) -> None:
    content = "path;label;seen, heard, noted\na.wav;tug;x\n"
    (only,) = read_table(written(tmp_path, content), ("path", "label"))
    assert only.text("label") == "tug"


def test_values_may_hold_separators_quotes_and_line_ends(tmp_path: Path) -> None:
    lines = read_table(written(tmp_path, 'path,label\n"a, ""b"".wav","two\nlines"\nc.wav,tug\n'), ("path", "label"))
    assert [(line.number, line.text("path")) for line in lines] == [(3, 'a, "b".wav'), (4, "c.wav")]
    assert lines[0].text("label") == "two\nlines"


def test_a_column_that_is_not_there_reads_as_empty(tmp_path: Path) -> None:
    (only,) = read_table(written(tmp_path, "path\na.wav\n"), ("path",), ("group",))
    assert only.text("group") == ""


def test_other_columns_are_ignored_where_they_may_be(tmp_path: Path) -> None:
    assert len(read_table(written(tmp_path, "path,sea\na.wav,calm\n"), ("path",))) == 1


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", r": no column path, label; needed: path, label\. The first line names the columns"),
        ("\n\n", r": no column path, label"),
        ("path,label\n", r": has no lines below the names"),
        ("path,label\n\n,\n", r": has no lines below the names"),
        ("a.wav,tug\n", r": Unknown column 'a\.wav'\."),
        ("path,lable\na.wav,tug\n", r": Unknown column 'lable'\. Did you mean 'label'\? Valid: group, label, path"),
        ("path,group\na.wav,x\n", r": no column label; needed"),
        ("path,label,path\na.wav,tug,b.wav\n", r": column 'path' is there twice"),
        ("path,label\na.wav,tug\na, b.wav,tug\n", r", line 3: has 3 values for 2 columns\. Put quotes around .* ','"),
        ("path,label\na.wav\n", r", line 2: has 1 values for 2 columns\.$"),
        ('path,label\n"a.wav,tug\nb.wav,tug\n', r", line 3: not a CSV table \(unexpected end of data\)"),
        ('path,label\n"a"b.wav,tug\n', r", line 2: not a CSV table"),
        ("path,label\n" + "a" * 200_000 + ",tug\n", r", line 2: not a CSV table \(field larger than"),
        ("path,label\na.wav,tug\n1.wav;tug\n", r", line 3: has 1 values for 2 columns\.$"),
        ("path,label\na.wav,tug\n".encode("utf-16")[:-1], r", line 2: not text in UTF-16-LE"),
        ("path,label\nä.wav,tüg\n".encode().replace(b"\xbc", b"\xff"), r", line 2: not text in UTF-8 \(invalid"),
        (b"path,label\na\x81.wav,tug\n", r", line 2: not a table in UTF-8\. Save it as 'CSV UTF-8'"),
        ("sep=;\npath;label\n\na.wav;tug;x\n", r", line 4: has 3 values for 2 columns\. Put quotes around .* ';'"),
        ("path,label,sea\na.wav,tug,1\nb.wav,tug,3\n", r": Unknown column 'sea'"),
    ],
)
def test_a_broken_table_is_named_with_its_line(tmp_path: Path, content: str | bytes, complaint: str) -> None:
    with pytest.raises(InputError, match=rf"table\.csv{complaint}"):
        read_table(written(tmp_path, content), ("path", "label"), ("group",))


def test_a_table_that_is_not_there_or_a_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no\.csv: no such file"):
        read_table(tmp_path / "no.csv", ("path",))
    with pytest.raises(InputError, match=r"cannot be read: Is a directory"):
        read_table(tmp_path, ("path",))


@pytest.mark.parametrize("text", ["x", "1.5", "", "1" * 5_000])
def test_a_whole_number_is_one(text: str) -> None:
    assert line(3, fold=" 7 ").whole("fold") == line(3, fold="7.0").whole("fold") == 7
    with pytest.raises(InputError, match=r"table\.csv, line 3: fold must be a whole number, not"):
        line(3, fold=text).whole("fold")


@pytest.mark.parametrize("text", ["x", "1,5", "nan", "-inf", "1e999"])
def test_a_number_is_finite(text: str) -> None:
    assert line(3, end_s="2.5").number_or("end_s", 1.0) == 2.5
    assert line(3, end_s=" ").number_or("end_s", 1.0) == 1.0
    with pytest.raises(InputError, match=r"table\.csv, line 3: end_s must be a number, not"):
        line(3, end_s=text).number_or("end_s", 1.0)


def test_a_decimal_comma_is_read_between_semicolons(tmp_path: Path) -> None:
    (only,) = read_table(written(tmp_path, "path;end_s\na.wav;2,5\n"), ("path", "end_s"))
    assert only.number_or("end_s", 0.0) == 2.5


def test_after_a_tab_a_comma_that_may_part_thousands_is_refused(tmp_path: Path) -> None:
    lines = read_table(written(tmp_path, "path\tend_s\na.wav\t2,5\nb.wav\t1,500\n"), ("path", "end_s"))
    assert lines[0].number_or("end_s", 0.0) == 2.5
    with pytest.raises(InputError, match=r"line 3: end_s must be a number, not '1,500'"):
        lines[1].number_or("end_s", 0.0)


@pytest.mark.parametrize("name", ["table.csv", "TABLE.TSV", "Table.txt", "table.tab"])
def test_a_table_is_found_whatever_its_case_and_ending(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    assert table_at(tmp_path, "table.csv") == tmp_path / name
    assert table_at(tmp_path, "other.csv") is None
    (tmp_path / "table.tsv").touch()
    (tmp_path / "table.csv").touch()
    with pytest.raises(InputError, match=r"which of the two counts\? Take one out"):
        table_at(tmp_path, "table.csv")


@pytest.mark.parametrize("other", ["Tug", "tug ", "TUG", "\u00a0tug"])
def test_names_that_differ_only_in_case_or_blanks_are_refused(other: str) -> None:
    with pytest.raises(InputError, match=r"line 4: class .* is 'tug' in line 2: they differ only in case or blan"):
        check_names([(line(2), "tug"), (line(3), "cargo"), (line(4), other)])


@pytest.mark.parametrize(
    ("name", "other", "what"),
    [
        ("F\u00e4hre", "Fa\u0308hre", r"Unicode form \(NFC, NFD\)"),
        ("tug", "\uff54\uff55\uff47", "case or blanks"),
        ("1", "01", "how the number is written"),
        ("1", "1.0", "how the number is written"),
        ("sea lion", "sealion", "case or blanks"),
    ],
)
def test_names_are_compared_as_they_are_read_not_as_they_are_written(name: str, other: str, what: str) -> None:
    with pytest.raises(InputError, match=f"line 3: .* in line 2: they differ only in {what}. Write them alike"):
        check_names([(line(2), name), (line(3), other)])


def test_names_that_are_two_are_left_alone() -> None:
    names = ["tug", "tugs", "1", "10", "1.5", "-1", "tug 1", "tug 10", "1 10", "11 0", "C", "C#", "C++"]
    check_names([(line(number), name) for number, name in enumerate([*names, *names], 2)])


def test_missing_files_come_with_the_first_line_that_names_them(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    (tmp_path / "folder.wav").mkdir()
    names = ["b.wav", "a.wav", "folder.wav", "b.wav", "nul\0.wav"]
    missing = missing_files((line(number), tmp_path / name) for number, name in enumerate(names, 2))
    expected = [("b.wav", 2), ("folder.wav", 4), ("nul\0.wav", 6)]
    assert [(path.name, line.number) for path, line in missing.items()] == expected


def test_a_name_no_file_can_have_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"line 2: .* cannot be read: File name too long"):
        missing_files([(line(2), tmp_path / ("a" * 300))])
