import csv
from io import StringIO

import pytest

from thaw.data.tables import Lines


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("name", ['a" ,b.jpg', 'a" ;b.jpg', '"a" ', 'x, " ,c', '"\n" , b', "two\nlines", " a ", '" '])
def test_a_quoted_field_is_read_as_it_was_written(name: str, delimiter: str) -> None:
    quoted = '"' + name.replace('"', '""') + '"'
    for fields in ([quoted, "red", quoted], [f"{quoted}  ", " red", f" {quoted} "], ["red", f" {quoted}", quoted]):
        text = "\n".join([delimiter.join("abc"), *[delimiter.join(fields)] * 2])
        expected = [name if '"' in field else "red" for field in fields]
        lines = [[*line.values()] for _, line in Lines(StringIO(text + "\n", newline=""), "abc")]
        assert lines == [expected] * 2


def test_what_another_delimiter_than_the_files_divides_stays_as_it_is() -> None:
    text = 'path;label\na, "b" ,c.jpg;red\n"5"" , wide.jpg" ;red\n'
    assert [line["path"] for _, line in Lines(StringIO(text), ["path", "label"])] == ['a, "b" ,c.jpg', '5" , wide.jpg']


def test_a_line_of_more_fields_than_columns_is_refused() -> None:
    lines = Lines(StringIO("path,label\n0.png,ant,\n1.png,ant, red\n2.png,bee\n"), ["path"])
    message = r"after line 2: the next one has more fields than there are columns; is a quote missing there"
    with pytest.raises(csv.Error, match=message):
        list(lines)
