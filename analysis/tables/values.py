"""Texts by column → moments, spans, statuses and names, or the first row that holds something else (SQL in DuckDB)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import duckdb

from analysis.tables.mapping import Mapping as TableMapping
from analysis.tables.mapping import Source
from analysis.tables.opening import Opened, literal, quoted
from experiments.core.errors import RecordsError

MICROSECONDS: Mapping[str, str] = {"s": "1000000", "ms": "1000", "us": "1", "ns": "0.001"}
LONGEST_US = 10**12
"""Eleven days: whoever reads a longer latency has its unit wrong."""

LATEST_US = 10**16
"""The year 2286: likewise for a moment."""


@dataclass(frozen=True)
class Value:
    """One value of every row: how it is read, from which text, and what it must be; `must` empty: it may be missing."""

    name: str
    sql: str
    text: str
    place: str
    must: str = ""


def text(opened: Opened, mapping: TableMapping, source: Source) -> str:
    """The SQL of the text that a source names.

    Raises:
        RecordsError: the table has no such column.
    """
    if source.column is not None:
        found = column(opened, source.column)
    elif source.tag is not None:
        found = _tag(opened, mapping, source.tag)
    else:
        found = _header(opened, mapping, source.header or "")
    found = f"nullif(trim({found}), '')"
    if source.pattern is not None:
        found = f"nullif(regexp_extract({found}, {literal(source.pattern)}, 1), '')"
    if source.values:
        cases = " ".join(f"WHEN {literal(old)} THEN {literal(new)}" for old, new in sorted(source.values.items()))
        found = f"CASE {found} {cases} ELSE {found} END"
    return found


def column(opened: Opened, name: str) -> str:
    """The SQL of a column; of JSON, of a dotted path.

    Raises:
        RecordsError: the table has no such column.
    """
    if opened.form == "jsonl":
        return f"json_extract_string(object, {literal(_path(name.split('.')))})"
    if name not in opened.columns:
        known = ", ".join(opened.columns[:20])
        raise RecordsError(f"{opened.path}:1: has no column {name!r}, only {known}; is it another tool's file?")
    return quoted(name)


def _path(steps: list[str]) -> str:
    return "$" + "".join(f'."{step}"' for step in steps)


def _tag(opened: Opened, mapping: TableMapping, name: str) -> str:
    if mapping.tags is None:
        raise RecordsError(f"{opened.path}: tag {name!r}: the mapping does not say where tags are; add tags: COLUMN.")
    if opened.form == "jsonl":
        return f"json_extract_string(object, {literal(_path([*mapping.tags.split('.'), name]))})"
    return f"regexp_extract({column(opened, mapping.tags)}, {literal(f'(?:^|&){_escaped(name)}=([^&]*)')}, 1)"


def _header(opened: Opened, mapping: TableMapping, name: str) -> str:
    """Go writes headers in canonical case, with a list of values; others in lower case, with one."""
    if mapping.headers is None:
        raise RecordsError(f"{opened.path}: header {name!r}: the mapping does not say where headers are.")
    if opened.form != "jsonl":
        blob = f"decode(from_base64({column(opened, mapping.headers)}))"
        line = "(?im)^" + _escaped(name) + ":[ \t]*([^\r\n]*)"
        return f"regexp_extract(TRY({blob}), {literal(line)}, 1)"
    spelled = ["-".join(part.capitalize() for part in name.split("-")), name.lower(), name]
    paths = [_path([*mapping.headers.split("."), one]) for one in dict.fromkeys(spelled)]
    each = [f"json_extract_string(object, {literal(path + end)})" for path in paths for end in ("[0]", "")]
    return f"coalesce({', '.join(each)})"


def _escaped(name: str) -> str:
    return "".join(sign if sign.isalnum() else f"\\{sign}" for sign in name)


def values(opened: Opened, mapping: TableMapping) -> Iterator[Value]:
    """Everything that is read of a row."""
    latency = text(opened, mapping, mapping.latency)
    scaled = f"TRY_CAST({latency} AS DOUBLE) * {MICROSECONDS[mapping.latency.unit]}"
    bounded = f"CASE WHEN {scaled} BETWEEN 0 AND {LONGEST_US} THEN CAST(round({scaled}) AS BIGINT) END"
    yield Value(
        "latency_us", bounded, latency, mapping.latency.told, f"a number of {mapping.latency.unit}, not negative"
    )
    when = text(opened, mapping, mapping.time)
    yield Value("at_us", _moment(when, mapping.time.unit), when, mapping.time.told, _moments(mapping.time.unit))
    if mapping.status is not None:
        status = text(opened, mapping, mapping.status)
        code = f"CASE WHEN TRY_CAST({status} AS INTEGER) BETWEEN 0 AND 999 THEN TRY_CAST({status} AS INTEGER) END"
        yield Value("status", code, status, mapping.status.told, "an HTTP status, 0 where none came")
    for name in ("error", "cohort", "arm", "signature"):
        source: Source | None = getattr(mapping, name)
        if source is not None:
            found = text(opened, mapping, source)
            yield Value(name, found, found, source.told)


def _number(found: str) -> str:
    return f"TRY_CAST({found} AS DECIMAL(38, 9))"


def _moments(unit: str) -> str:
    told = {"rfc3339": "a moment with its zone, as 2026-01-31T12:00:00Z", "epoch": "a moment of any unit, or RFC 3339"}
    return told.get(unit, f"{unit} since 1970")


def _moment(found: str, unit: str) -> str:
    """Microseconds since 1970; a moment without its zone is none."""
    zoned = f"regexp_matches({found}, '(Z|z|[+-][0-9]{{2}}:?[0-9]{{2}})$')"
    rfc = f"CASE WHEN {zoned} THEN epoch_us(TRY_CAST({found} AS TIMESTAMP)) END"  # an offset is taken off: UTC
    if unit == "rfc3339":
        return rfc
    number = _number(found)
    if unit == "epoch":
        factors = " ".join(
            f"WHEN {number} BETWEEN 1e{exponent} AND 1e{exponent + 1} THEN {MICROSECONDS[name]}"
            for name, exponent in (("s", 9), ("ms", 12), ("us", 15), ("ns", 18))
        )
        return f"coalesce(CAST(floor({number} * CASE {factors} END) AS BIGINT), {rfc})"
    scaled = f"{number} * {MICROSECONDS[unit]}"
    return f"CASE WHEN {scaled} BETWEEN 0 AND {LATEST_US} THEN CAST(floor({scaled}) AS BIGINT) END"


def read(connection: duckdb.DuckDBPyConnection, opened: Opened, mapping: TableMapping) -> list[Value]:
    """Make `typed` of `raw`: one row for each request.

    Raises:
        RecordsError: nothing is left, or a row holds what it must not; the message names the first.
    """
    where = " AND ".join(_kept(connection, opened, mapping)) or "true"
    found = list(values(opened, mapping))
    parts = ", ".join(f"{one.sql} AS {one.name}, {one.text} AS {one.name}_text" for one in found)
    try:
        connection.execute(f"CREATE TABLE typed AS SELECT row, {parts} FROM raw WHERE {where}")  # noqa: S608 - quoted
    except duckdb.Error as error:
        raise RecordsError(
            f"{opened.path}: cannot be read: {str(error).splitlines()[0][:200]}; check the mapping."
        ) from error
    if not connection.execute("SELECT count(*) FROM typed").fetchall()[0][0]:
        raise RecordsError(f"{opened.path}: holds no request: there is nothing to judge; name another file.")
    for one in found:
        if one.must:
            _check(connection, opened, one)
    return found


def _kept(connection: duckdb.DuckDBPyConnection, opened: Opened, mapping: TableMapping) -> Iterator[str]:
    for keep in mapping.keep:
        place = column(opened, keep.column)
        there = {row[0] for row in connection.execute(f"SELECT DISTINCT {place} FROM raw").fetchall()}  # noqa: S608 - quoted
        first = next((value for value in keep.any_of if value in there), None)
        if first is None:
            wanted = " or ".join(keep.any_of)
            raise RecordsError(f"{opened.path}: no row has {keep.column} = {wanted}; is it another tool's file?")
        yield f"{place} = {literal(first)}"


def _check(connection: duckdb.DuckDBPyConnection, opened: Opened, value: Value) -> None:
    bad = connection.execute(
        f"SELECT row, {value.name}_text FROM typed WHERE {value.name} IS NULL ORDER BY row LIMIT 1"  # noqa: S608 - our own names
    ).fetchone()
    if bad:
        if not connection.execute(f"SELECT count({value.name}_text) FROM typed").fetchall()[0][0]:  # noqa: S608 - our own names
            raise RecordsError(f"{opened.path}: no row has {value.place}; is it another tool's file?")
        shown = "nothing" if bad[1] is None else repr(bad[1][:60])
        raise RecordsError(
            f"{opened.place(bad[0])}: {value.place} is {shown}, must be {value.must}; mend the row or the mapping."
        )
