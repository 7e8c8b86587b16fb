"""A file of any load tool's → a DuckDB view `raw` of texts by column, each row with its place in the file."""

import csv
import gzip
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import duckdb

from analysis.tables.mapping import Form
from experiments.core.errors import RecordsError

GZIP, PARQUET = b"\x1f\x8b", b"PAR1"
LONGEST_LINE = 32 * 1024 * 1024


@dataclass(frozen=True)
class Opened:
    """A file as `raw`: its columns (of JSON: `object` alone), and how its rows are counted."""

    path: Path
    form: Form
    columns: tuple[str, ...]
    header_line: bool = False

    def place(self, row: int) -> str:
        """Where a row is, as an editor finds it."""
        return f"{self.path}: row {row}" if self.form == "parquet" else f"{self.path}:{self._line(row)}"

    def _line(self, row: int) -> int:
        """A quoted field may hold line breaks, and empty lines count too: the file itself knows best."""
        if self.form == "jsonl":
            return row
        with _text(self.path) as file:
            lines = csv.reader(file)
            seen = -1 if self.header_line else 0
            for fields in lines:
                before, seen = seen, seen + bool(fields)
                if seen == row and before < row:
                    return lines.line_num
        return row


def form_of(path: Path) -> Form:
    """The format of a table, by its content.

    Raises:
        RecordsError: there is no such file, it is empty, or it is no table.
    """
    try:
        head = _head(path)
    except OSError as error:
        raise RecordsError(f"{path}: cannot be read: {error.strerror or error}; name a table's file.") from error
    if head.startswith(PARQUET):
        return "parquet"
    text = head.lstrip()
    if not text:
        raise RecordsError(f"{path}: is empty: there is nothing to judge; name another file.")
    if text.startswith(b'{"kind":"shard"'):
        raise RecordsError(f"{path}: is a shard of a run of ours; name its run directory, without --mapping.")
    if text.startswith(b"["):
        raise RecordsError(f"{path}:1: is one JSON array; a table has an object a line; make it with: jq -c '.[]'.")
    if b"\0" in head:
        raise RecordsError(f"{path}:1: is no text (vegeta's own? make it one with: vegeta encode --to csv).")
    return "jsonl" if text.startswith(b"{") else "csv"


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        head = file.read(65536)
    if head.startswith(GZIP):
        with gzip.open(path) as file:
            return file.read(65536)
    return head


def _text(path: Path) -> IO[str]:
    with path.open("rb") as file:
        zipped = file.read(2) == GZIP
    if zipped:
        return gzip.open(path, "rt", encoding="utf-8", errors="replace", newline="")
    return path.open(encoding="utf-8", errors="replace", newline="")


def open_table(connection: duckdb.DuckDBPyConnection, path: Path, form: Form, names: Sequence[str]) -> Opened:
    """Make `raw`.

    Args:
        connection: Where.
        path: The file.
        form: Its format.
        names: The columns of a CSV file without a header line; empty: it has one.

    Raises:
        RecordsError: it is damaged, or has other columns.
    """
    make = {"csv": _csv, "jsonl": _jsonl, "parquet": _parquet}[form]
    try:
        return make(connection, path, names)
    except duckdb.Error as error:
        raise RecordsError(_damaged(path, str(error))) from error


def _damaged(path: Path, message: str) -> str:
    line = re.search(r"Line: (\d+)", message)
    columns = re.search(r"Expected Number of Columns: (\d+) Found: (\d+)", message)
    where = f"{path}:{line[1]}" if line else str(path)
    if columns:
        return f"{where}: has {columns[2]} fields where {columns[1]} are expected; is it another tool's file?"
    if "unicode" in message.lower():
        return f"{where}: is no UTF-8 text; is it another tool's file?"
    return f"{where}: is damaged: {' '.join(message.splitlines()[0].split())[:200]}; write it anew."


def _csv(connection: duckdb.DuckDBPyConnection, path: Path, names: Sequence[str]) -> Opened:
    with _text(path) as file:
        found = next(csv.reader(file), [])
    columns = tuple(names) or tuple(found)
    if any(not name or name.isdigit() for name in columns):
        raise RecordsError(f"{path}:1: is no line of column names; is it another tool's file? Else add columns: [...].")
    if len(set(columns)) < len(columns):
        raise RecordsError(f"{path}:1: names a column twice ({', '.join(columns)}); rename one.")
    relation = connection.read_csv(
        str(path), header=not names, columns=dict.fromkeys(columns, "VARCHAR"), auto_detect=False, delimiter=",",
        quotechar='"', escapechar='"', parallel=False, max_line_size=LONGEST_LINE, compression=_compression(path),
    )  # fmt: skip
    _keep(connection, relation)
    return Opened(path, "csv", columns, header_line=not names)


def _compression(path: Path) -> str:
    with path.open("rb") as file:
        return "gzip" if file.read(2) == GZIP else "none"


def _jsonl(connection: duckdb.DuckDBPyConnection, path: Path, names: Sequence[str]) -> Opened:
    del names
    relation = connection.read_csv(
        str(path), header=False, columns={"object": "VARCHAR"}, auto_detect=False, delimiter="\x01", quotechar="",
        escapechar="", parallel=False, max_line_size=LONGEST_LINE, compression=_compression(path),
    )  # fmt: skip
    _keep(connection, relation)
    bad = connection.execute(
        "SELECT row FROM raw WHERE object IS NOT NULL AND NOT (json_valid(object) AND object LIKE '{%') ORDER BY row"
    ).fetchone()
    if bad:
        raise RecordsError(
            f"{path}:{bad[0]}: is no JSON object; every line must be one (torn at the end? leave it out)."
        )
    connection.execute("DELETE FROM raw WHERE object IS NULL")
    return Opened(path, "jsonl", ("object",))


def _parquet(connection: duckdb.DuckDBPyConnection, path: Path, names: Sequence[str]) -> Opened:
    del names
    relation = connection.read_parquet(str(path))
    typed = dict(zip(relation.columns, map(str, relation.types), strict=True))
    texts = ", ".join(f"{_as_text(column, kind)} AS {quoted(column)}" for column, kind in typed.items())
    _keep(connection, relation.project(texts))
    return Opened(path, "parquet", tuple(typed))


def _as_text(column: str, kind: str) -> str:
    """A moment as RFC 3339 in UTC, whatever the machine's own zone."""
    if kind.startswith("TIMESTAMP"):
        return f"strftime(CAST({quoted(column)} AS TIMESTAMP), '%Y-%m-%dT%H:%M:%S.%fZ')"
    return f"CAST({quoted(column)} AS VARCHAR)"


def _keep(connection: duckdb.DuckDBPyConnection, relation: duckdb.DuckDBPyRelation) -> None:
    relation.create_view("read")
    connection.execute("CREATE TABLE raw AS SELECT *, row_number() OVER () AS row FROM read")


def quoted(name: str) -> str:
    """A column's name in SQL.

    >>> quoted('a"b')
    '"a""b"'
    """
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text in SQL.

    >>> literal("it's")
    "'it''s'"
    """
    return "'" + text.replace("'", "''") + "'"
