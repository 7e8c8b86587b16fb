"""The access log that a real Envoy writes, read through the mapping that is shipped for it."""

from collections import Counter

from analysis.tables.judge import judge_table
from deploy.embedded import admin
from tests.deploy.test_gateway import two_arms


def test_a_real_access_log_is_judged(gateway, tmp_path):
    gateway.apply(two_arms({"a": 70, "b": 30}))
    log = gateway.files.access_log
    before = log.stat().st_size if log.exists() else 0
    seen = Counter(gateway.arm() for _ in range(300))

    def written():
        lines = log.read_text()[before:].splitlines()
        return [line for line in lines if ":predict" in line and "outbound|8501|" in line]

    assert admin.wait_for(lambda: len(written()) == 300, 5)
    table = tmp_path / "access.jsonl"
    table.write_text("\n".join(written()) + "\n")
    report = judge_table(table, "envoy", "a=70%,b=30%")
    assert {one.arm: one.count for one in report.shares} == seen
    assert {one.arm: one.failed for one in report.failures} == {"a": 0, "b": 0}
    assert all(state != "broken" for state in (claim.state for claim in report.claims))
