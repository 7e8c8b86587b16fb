import pytest

from experiments.core import journal
from experiments.core.errors import RecordsError


def applied(sequence, at):
    return journal.Applied(sequence, f"p{sequence}", at, "test", [{"route": []}], ["a"])


def test_a_journal_reads_back_in_order(tmp_path):
    path = tmp_path / "journal.jsonl"
    entries = [applied(1, 10), journal.Effective(1, 20, 5), journal.Foreign(25, "weights", "kubectl"), applied(2, 30)]
    for entry in entries:
        journal.append(path, entry)
    assert journal.read(path) == entries
    known = journal.changes(journal.read(path))
    assert [(change.phase, change.applied_us, change.effective_us) for change in known] == [
        ("p1", 10, 20),
        ("p2", 30, None),
    ]


def test_periods_leave_the_transitions_out():
    entries = [applied(1, 10), journal.Effective(1, 20, 5), applied(2, 100), journal.Effective(2, 130, 5)]
    found = journal.periods(journal.changes(entries), end_us=200, uncertainty_us=2)
    assert [(period.phase, period.start_us, period.end_us) for period in found] == [("p1", 22, 98), ("p2", 132, 200)]


def test_a_routing_that_nobody_saw_has_no_period_but_ends_the_one_before():
    entries = [applied(1, 10), journal.Effective(1, 20, 5), applied(2, 100)]
    found = journal.periods(journal.changes(entries), end_us=200)
    assert [(period.phase, period.start_us, period.end_us) for period in found] == [("p1", 20, 100)]


def spoilt(at, object="VirtualService", *, lasting=False):  # noqa: A002 - the field's name
    return journal.Foreign(at, "edited", "kubectl", object=object, lasting=lasting)


@pytest.mark.parametrize(
    ("foreign", "expected"),
    [
        ([spoilt(50)], [("p1", 20, 50), ("p2", 130, 200)]),
        ([spoilt(15)], [("p2", 130, 200)]),  # before it was seen in force, and there ever since
        ([spoilt(5)], [("p1", 20, 100), ("p2", 130, 200)]),  # ours came after it
        ([spoilt(150), spoilt(140)], [("p1", 20, 100), ("p2", 130, 140)]),
        ([spoilt(50, "Gateway", lasting=True)], [("p1", 20, 50)]),
        ([spoilt(50, "Pod", lasting=True)], [("p1", 20, 100), ("p2", 130, 200)]),
    ],
)
def test_a_period_ends_where_somebody_else_changes_the_routing(foreign, expected):
    entries = [applied(1, 10), journal.Effective(1, 20, 5), applied(2, 100), journal.Effective(2, 130, 5)]
    found = journal.periods(journal.changes(entries), 200, 0, foreign)
    assert [(period.phase, period.start_us, period.end_us) for period in found] == expected


def test_a_foreign_line_is_refused_with_its_number(tmp_path):
    path = tmp_path / "journal.jsonl"
    journal.append(path, applied(1, 10))
    path.write_bytes(path.read_bytes() + b"{}\n")
    with pytest.raises(RecordsError, match=":2: no journal entry"):
        journal.read(path)


def test_no_file_is_an_empty_journal(tmp_path):
    assert journal.read(tmp_path / "none") == []
