import json

import pytest


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["swapped", "leak", "impostor", "slower", "failing"])
def test_each_sabotage_is_caught_and_its_twin_is_not_blamed(place, name):
    ran = place.run("selftest", "--only", name, timeout=600)
    assert ran.code == 0, ran.out + ran.err
    lines = [line.split() for line in ran.out.splitlines()]
    assert [line[0] for line in lines] == ["ok", "ok"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_equal_models_are_refused_unless_the_header_may_tell_them_apart(place, tmp_path):
    from experiments.core.reading import CATALOGUE

    text = (CATALOGUE / "aa.yaml").read_text().replace("attribution: route-header", "")
    plain = tmp_path / "plain.yaml"
    plain.write_text(text)
    refused = place.run("run", str(plain))
    assert refused.code == 2
    assert "tell the arms apart" in refused.err
    allowed = place.run("run", "aa", timeout=200)
    assert allowed.code in (0, 3), allowed.err
    assert "route header" in allowed.out
    assert json.loads((allowed.run.path / "report.json").read_text())["verdict"]["word"] in ("promote", "hold")
