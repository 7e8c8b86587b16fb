import sys

from analysis import patience


def test_what_takes_long_is_told_once_each_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(patience, "AFTER_S", 60.0)
    with patience.patience() as told:
        told.doing("reading")
        told._is_late()
        told.doing("reading")
        told.doing("writing")
    assert capsys.readouterr().err.splitlines() == ["reading …", "writing …"]


def test_nothing_is_told_in_a_log(capsys):
    with patience.patience() as told:
        told.doing("reading")
    assert capsys.readouterr().err == ""
