"""Run directory → verdict: healthy runs, the five sabotages, and records that are not what they should be."""

import re
from dataclasses import replace

import msgspec
import pytest

from analysis import adapters
from analysis import judge as judging
from analysis.failures import Arm, Pair, interval, is_shown, log_e_harm
from analysis.rows import DERIVED
from experiments.core import journal, records
from experiments.core.errors import RecordsError
from tests.analysis import gallery
from tests.analysis.synthetic import START_US, Layout, Truth, experiment, misrouted, write_run


def states(report, kind):
    return {claim.state for claim in report.claims if claim.kind == kind}


def named(report, identifier):
    return next(claim for claim in report.claims if claim.id == identifier)


def failed_checks(report):
    return [check.name for check in report.checks if not check.ok]


def test_healthy_is_promoted(judged):
    report = judged()
    assert (report.verdict.word, report.verdict.exit_code) == ("promote", 0)
    assert {claim.state for claim in report.claims} == {"shown"}
    assert failed_checks(report) == []
    assert report.records.requests == 7000
    seen = report.records
    assert seen.judged + seen.warm_up + seen.transition + seen.unfinished + seen.outside == 7000
    assert seen.warm_up == 500


def test_swapped_weights_are_the_routing_s_fault(judged):
    report = judged(misrouted("split", {"old": 0.3, "new": 0.7}))
    assert (report.verdict.word, report.verdict.cause, report.verdict.exit_code) == ("roll back", "routing", 1)
    assert named(report, "split/split/everyone+canary-users").state == "broken"
    assert states(report, "latency") == {"shown"}


def test_one_per_cent_leak_is_caught_within_a_tolerance_of_ten_points(judged):
    report = judged(misrouted("dark-launch", {"old": 0.99, "new": 0.01}))
    claim = named(report, "split/dark-launch/everyone+canary-users")
    assert (report.verdict.word, report.verdict.cause) == ("roll back", "routing")
    assert claim.state == "broken"
    assert claim.certain
    assert "reached new, which should get none" in report.verdict.sentence
    assert claim.interval.low > 0


def test_header_users_on_the_wrong_arm_are_caught(judged):
    def shares(phase, cohort, configured):
        return {"old": 0.1, "new": 0.9} if (phase, cohort) == ("focused", "canary-users") else configured

    report = judged(replace(Truth(), shares=shares))
    assert named(report, "split/focused/canary-users").state == "broken"
    assert named(report, "split/focused/everyone").state == "shown"


def test_a_wrong_model_behind_a_name_is_invalid(judged):
    problem = "arm new serves the model of old."
    report = judged(replace(Truth(), serves={"new": "old"}), Layout(problems=[problem]))
    assert (report.verdict.word, report.verdict.exit_code) == ("invalid", 4)
    assert problem in report.verdict.sentence


def test_a_wrong_model_that_nobody_noticed_before_is_never_promoted(judged):
    report = judged(replace(Truth(), serves={"new": "old"}))
    assert report.verdict.word == "roll back"
    assert "route header agrees" in failed_checks(report)
    assert named(report, "errors/new").state == "void"


def test_a_slower_canary_is_the_model_s_fault(judged):
    report = judged(replace(Truth(), median_ms={"old": 20.0, "new": 30.0}))
    assert (report.verdict.word, report.verdict.cause) == ("roll back", "model")
    assert named(report, "latency/new/p50").state == "broken"
    assert "latency" in report.verdict.sentence
    assert states(report, "split") == {"shown"}


def test_a_faster_canary_is_promoted(judged):
    report = judged(replace(Truth(), median_ms={"old": 30.0, "new": 20.0}))
    assert report.verdict.word == "promote"


def test_a_failing_canary_is_the_model_s_fault(judged):
    strict = experiment(claims={"errors": {"max_increase": 0.01}, "split": {"tolerance": 0.1}})
    report = judged(replace(Truth(), failing={"new": 0.05}), chosen=strict)
    assert (report.verdict.word, report.verdict.cause) == ("roll back", "model")
    assert named(report, "errors/new").state == "broken"
    classes = {name for row in report.failures for name in row.classes}
    assert classes == {"http-503"}


def test_a_failing_baseline_does_not_blame_the_canary(judged):
    report = judged(replace(Truth(), failing={"old": 0.05}))
    assert named(report, "errors/new").state == "shown"
    assert report.verdict.word == "promote"


def test_a_broken_claim_that_is_not_required_rolls_back_too(judged):
    claims = {"split": {"tolerance": 0.1}, "latency": {"p50": {"margin": 0.2, "required": False}}}
    truth = replace(Truth(), median_ms={"old": 20.0, "new": 30.0})
    assert judged(truth, chosen=experiment(claims=claims)).verdict.word == "roll back"


def test_model_goes_before_routing_when_both_are_broken(judged):
    truth = replace(misrouted("split", {"old": 0.3, "new": 0.7}), median_ms={"old": 20.0, "new": 40.0})
    report = judged(truth)
    assert report.verdict.cause == "model"
    assert any(identifier.startswith("split/") for identifier in report.verdict.because)


def test_too_little_is_undecided_and_says_what_is_missing(judged):
    report = judged(chosen=experiment(load={"arrivals": 2.0, "warmup": 5.0}))
    assert (report.verdict.word, report.verdict.exit_code) == ("hold", 3)
    assert "void" not in {claim.state for claim in report.claims}
    assert report.verdict.need.requests > 0
    assert report.verdict.need.seconds > 0


def test_a_quantile_that_the_sample_cannot_support_is_undecided(judged):
    claims = {"latency": {"p99.9": {"margin": 0.5}}, "split": {"tolerance": 0.1}}
    claim = named(judged(chosen=experiment(claims=claims)), "latency/new/p99.9")
    assert claim.state == "undecided"
    assert "10,000 requests of each arm" in claim.sentence
    assert claim.need.requests > 10_000


def test_random_weights_leave_outputs_out(judged):
    report = judged(layout=Layout(weights="random"))
    assert not report.outputs_applicable
    assert report.verdict.word == "promote"
    assert any("random" in remark for remark in report.remarks)


def test_agreement_and_labels_come_from_the_references(judged):
    # By hand from synthetic.OUTPUTS: the arms differ on "dog" only, where old is right.
    (outputs,) = judged().outputs
    assert (outputs.payloads, outputs.agreeing) == (3, 2)
    assert (outputs.right, outputs.baseline_right, outputs.labelled) == (2, 3, 3)
    assert (outputs.only_arm_right, outputs.only_baseline_right) == (0, 1)


def test_requests_of_unknown_arm_are_held_against_every_claim(judged):
    some = judged(replace(Truth(), unheard=0.03))
    none = judged()
    for identifier in ("split/split/everyone+canary-users", "errors/new"):
        wide, narrow = named(some, identifier).interval, named(none, identifier).interval
        assert wide.high - wide.low > narrow.high - narrow.low
    assert named(some, "errors/new").state != "broken"


def test_requests_that_timed_out_are_said_to_be_in_no_quantile(judged):
    told = [line for line in judged(replace(Truth(), unheard=0.03)).remarks if "timed out" in line]
    assert re.match(r"\d+ requests of [\d,]+ \((2|3)[.\d]*%\) timed out: .* in no quantile\.$", *told)
    assert not [line for line in judged().remarks if "timed out" in line]


def test_outputs_that_match_nothing_are_counted_in_the_open(judged):
    few = judged(replace(Truth(), garbled=0.01))
    check = next(check for check in few.checks if check.name == "answers attributed")
    assert check.ok
    assert "near no reference" in check.sentence
    many = judged(replace(Truth(), garbled=0.2))
    assert named(many, "latency/new/p50").state == "void"
    assert many.verdict.word == "invalid"


def test_killed_process_is_incomplete_and_never_promoted(judged):
    report = judged(layout=Layout(trailers=False, torn=True, workers=2))
    assert not report.records.complete
    assert report.verdict.word == "invalid"
    assert "incomplete" in report.verdict.sentence
    assert report.records.lost_at_most == 6


def test_incomplete_records_do_not_excuse_a_leak(judged):
    truth = misrouted("dark-launch", {"old": 0.95, "new": 0.05})
    report = judged(truth, Layout(trailers=False))
    assert report.verdict.word == "roll back"


def test_missing_sequence_numbers_are_counted(tmp_path):
    run = write_run(tmp_path, layout=Layout(trailers=False))
    (shard,) = run.shards()
    lines = shard.read_bytes().splitlines(keepends=True)
    shard.write_bytes(b"".join(lines[:3000] + lines[3005:]))
    assert judging.judge(run).records.lost_at_most == 5 + 3


def test_what_a_process_had_in_flight_is_told_as_unknown_where_it_never_said(tmp_path):
    run = write_run(tmp_path, layout=Layout(trailers=False))
    (shard,) = run.shards()
    assert "up to 3 requests in flight not recorded" in judging.judge(run).verdict.sentence
    shard.write_bytes(b"".join(line for line in shard.read_bytes().splitlines(keepends=True)[:-1]))
    assert "an unknown number of requests in flight not recorded" in judging.judge(run).verdict.sentence


def test_a_whole_shard_that_is_missing_is_noticed(tmp_path):
    run = write_run(tmp_path, layout=Layout(workers=2))
    info = records.read_info(run)
    import msgspec

    records.write_json(run.info, msgspec.structs.replace(info, locust_requests=7000))
    run.shards()[0].unlink()
    report = judging.judge(run)
    assert "a shard is missing" in report.verdict.sentence


def test_numbers_that_two_processes_sent_are_told_and_nothing_is_promoted(tmp_path):
    run = write_run(tmp_path, layout=Layout(workers=2))
    first, second = run.shards()
    taken = [line for line in first.read_bytes().splitlines(keepends=True) if line.startswith(b"[")][:7]
    head, *rest = second.read_bytes().splitlines(keepends=True)
    trailer = rest.pop()
    more = msgspec.json.decode(trailer)
    more = {**more, "rows": more["rows"] + 7, "locust_requests": more["rows"] + 7, "scheduled": more["rows"] + 7}
    second.write_bytes(head + b"".join([*rest, *taken]) + msgspec.json.encode(more) + b"\n")
    for _again in range(2):  # the second time from the derived file
        report = judging.judge(run)
        (check,) = [check for check in report.checks if check.name == "records reconciled"]
        assert check.sentence.startswith("7 requests of the schedule sent by more than one load process")
        assert report.verdict.word == "invalid"


def test_a_shard_that_was_copied_is_refused(tmp_path):
    run = write_run(tmp_path, layout=Layout(workers=2))
    first = run.shards()[0]
    for name, size in (("requests-copy-1.jsonl", None), ("requests-copy-2.jsonl", 5000)):
        copy = run.path / name
        copy.write_bytes(first.read_bytes()[:size])
        with pytest.raises(RecordsError, match=r"the process that wrote .* one is a copy; move it out"):
            judging.judge(run)
        copy.unlink()
    assert judging.judge(run).verdict.word == "promote"


@pytest.mark.parametrize("busy", [{"cpu": 0.97}, {"lag_us": 400_000}])
@pytest.mark.parametrize(("required", "word"), [(True, "invalid"), (False, "promote")])
def test_where_the_generator_was_the_bottleneck_only_latency_is_void(tmp_path, busy, required, word):
    claims = {"split": {"tolerance": 0.1}, "latency": {"p50": {"margin": 0.2, "required": required}}}
    run = write_run(tmp_path, experiment(claims=claims))
    (shard,) = run.shards()
    *lines, trailer = shard.read_bytes().splitlines(keepends=True)
    beat = {"watermark_us": START_US, "in_flight": 3, "cpu": 0.3, "lag_us": 900, "sent": 7000}
    beats = [records.Beat(**{"at_us": START_US + at * 10**6, **beat, **(busy if at < 20 else {})}) for at in range(70)]
    shard.write_bytes(b"".join([*lines, *(msgspec.json.encode(each) + b"\n" for each in beats), trailer]))
    report = judging.judge(run)
    assert report.verdict.word == word
    assert ("The generator was the bottleneck" in report.verdict.sentence) == required
    assert states(report, "latency") == {"void"}
    assert states(report, "split") == states(report, "errors") == {"shown"}


def test_derived_rows_are_made_anew_when_a_shard_changes(tmp_path):
    run = write_run(tmp_path)
    first = judging.judge(run)
    assert (run.path / DERIVED).exists()
    assert judging.judge(run) == first
    (shard,) = run.shards()
    lines = shard.read_bytes().splitlines(keepends=True)
    shard.write_bytes(b"".join(lines[:4000] + lines[-1:]))
    assert judging.judge(run).records.requests == 3999
    (run.path / DERIVED).write_bytes(b"not parquet")
    assert judging.judge(run).records.requests == 3999


def test_no_request_of_a_transition_is_judged(judged):
    slow = replace(Truth(), effective_us=2_000_000)
    report = judged(slow)
    # Two changes under load, two seconds each, at 100/s, and what was in flight when they began.
    assert 400 <= report.records.transition <= 420
    assert report.verdict.word == "promote"


def test_a_period_stops_counting_at_the_oldest_request_in_flight(tmp_path):
    """A request of the baseline that hangs for a second before the change takes what came after it along."""
    run = write_run(tmp_path)
    (shard,) = run.shards()
    lines = shard.read_bytes().splitlines(keepends=True)
    index = 1 + 900  # at 9 s; the route changes at 10 s
    row = records._row_decoder.decode(lines[index])
    import msgspec

    hanging = msgspec.structs.replace(row, latency_us=1_500_000)
    lines[index] = msgspec.json.encode(hanging) + b"\n"
    shard.write_bytes(b"".join(lines))
    report = judging.judge(run)
    assert next(line.requests for line in report.periods if line.phase == "dark-launch") == 900 - 500
    assert report.records.transition >= 100
    assert row.start_us > START_US + 8_900_000


def test_service_balancing_is_shown_not_judged(judged):
    phases = [
        {"name": "alone", "arms": ["old"], "route": "service", "for": 10.0},
        {"name": "no-rule", "route": "service", "for": 20.0},
        {"name": "split", "route": {"old": 70, "new": 30}, "for": 45.0},
    ]
    report = judged(chosen=experiment(phases=phases))
    assert {share.expected for share in report.shares if share.phase == "no-rule"} == {None}
    assert {share.expected for share in report.shares if share.phase == "alone"} == {1.0, 0.0}
    assert not any(claim.phase == "no-rule" for claim in report.claims)
    assert any(one.phase == "no-rule" for one in report.dispersions)


def test_header_attribution_says_so_first(judged):
    chosen = experiment(attribution="route-header")
    report = judged(layout=Layout(references=False), chosen=chosen)
    assert report.verdict.word == "promote"
    assert "route header" in report.remarks[0]


def test_without_references_nothing_is_promoted(judged):
    report = judged(layout=Layout(references=False))
    assert report.verdict.word == "invalid"
    assert "no references" in report.verdict.sentence


def test_only_header_phases_compare_across_cohorts(judged):
    phases = [
        {"name": "focused", "route": [{"when": {"user-group": "canary"}, "to": "new"}, {"to": "old"}], "for": 45.0}
    ]
    report = judged(chosen=experiment(phases=phases))
    claim = named(report, "latency/new/p50")
    assert claim.state == "shown"
    assert "different cohorts" in claim.sentence


def test_hypotheses_of_a_run_by_hand_are_made_from_its_experiment(judged):
    report = judged(layout=Layout(registered=False))
    assert report.verdict.word == "promote"
    assert any("registered" in remark for remark in report.remarks)


def test_no_phase_that_compares_is_void(judged):
    phases = [{"name": "dark", "route": {"old": 100, "new": 0}, "for": 30.0}]
    report = judged(chosen=experiment(phases=phases))
    assert report.verdict.word == "invalid"
    assert named(report, "latency/new/p50").state == "void"


def test_shards_of_another_run_are_refused(tmp_path):
    run = write_run(tmp_path)
    (shard,) = run.shards()
    shard.write_bytes(shard.read_bytes().replace(b"synthetic-run", b"another-run"))
    with pytest.raises(RecordsError, match="belongs to run 'another-run'"):
        judging.judge(run)


def test_a_change_that_nobody_saw_in_force_is_not_judged(tmp_path):
    run = write_run(tmp_path)
    lines = run.journal.read_bytes().splitlines(keepends=True)
    run.journal.write_bytes(b"".join(lines[:3] + lines[4:]))
    report = judging.judge(run)
    assert named(report, "split/split/everyone+canary-users").state == "void"
    assert named(report, "split/dark-launch/everyone+canary-users").state == "shown"
    assert report.verdict.word == "invalid"


def edited(at_s, object="VirtualService", *, lasting=False):  # noqa: A002 - the field's name
    """Somebody edits what is live, so many seconds after the start."""
    what = f"{object} canary was changed (weights now old 30/new 70)"
    return journal.Foreign(START_US + round(at_s * 1e6), what, "kubectl-edit", object=object, lasting=lasting)


def judged_with(folder, entry, truth=None):
    run = write_run(folder, truth=truth)
    journal.append(run.journal, entry)
    return judging.judge(run)


def test_somebody_else_s_change_of_the_routing_is_told_and_not_the_model_s_fault(tmp_path):
    report = judged_with(tmp_path, edited(20))
    assert (report.verdict.word, report.verdict.cause, report.verdict.exit_code) == ("invalid", "routing", 4)
    assert "VirtualService canary was changed (weights now old 30/new 70) by kubectl-edit" in report.verdict.sentence
    assert report.verdict.sentence.endswith("The routing is at fault; the model may be fine.")
    assert adapters.action(report.verdict) == adapters.PAUSE
    assert named(report, "split/split/everyone+canary-users").state == "void"
    assert named(report, "split/split/everyone+canary-users").void_by == "routing"
    assert named(report, "split/focused/canary-users").state == "shown"


def test_what_was_measured_after_somebody_s_change_is_not_judged(tmp_path):
    """Else a split that was broken by hand, and the failures that follow from it, would be the experiment's own."""
    wrong = misrouted("split", {"old": 0.3, "new": 0.7})
    report = judged_with(tmp_path, edited(10.1), wrong)
    assert (report.verdict.word, report.verdict.cause) == ("invalid", "routing")
    (period,) = [each for each in report.periods if each.phase == "split"]
    assert period.end_s < 10.2


def test_a_model_that_failed_before_somebody_changed_the_routing_is_still_rolled_back(tmp_path):
    """People take a bad canary out of the routing by hand: that does not make it a good one."""
    report = judged_with(tmp_path, edited(40), replace(Truth(), failing={"new": 0.4}))
    assert (report.verdict.word, report.verdict.cause) == ("roll back", "model")
    assert report.verdict.sentence.startswith("Roll back (errors)")


def test_a_change_that_no_later_phase_puts_right_lasts(tmp_path):
    report = judged_with(tmp_path, edited(20, "DestinationRule", lasting=True))
    assert named(report, "split/dark-launch/everyone+canary-users").state == "shown"
    assert named(report, "split/focused/canary-users").state == "void"
    assert [each.phase for each in report.periods] == ["dark-launch", "split"]


def test_a_pod_that_comes_or_goes_voids_its_phase_and_names_no_fault(tmp_path):
    report = judged_with(tmp_path, journal.Foreign(START_US + 20_000_000, "pod new-1 is gone", "kubectl", object="Pod"))
    assert (report.verdict.word, report.verdict.cause) == ("invalid", None)
    assert named(report, "split/split/everyone+canary-users").state == "void"
    assert named(report, "split/focused/canary-users").state == "shown"
    assert "kubectl" in report.verdict.sentence


def test_a_margin_finer_than_the_data_is_undecided(judged):
    claims = {"split": {"tolerance": 0.1}, "latency": {"p50": {"margin": 0.03}}}
    report = judged(chosen=experiment(claims=claims))
    claim = named(report, "latency/new/p50")
    assert claim.state == "undecided"
    assert claim.interval.low < 1.03 < claim.interval.high
    assert claim.need.requests > 0
    assert report.verdict.word == "hold"


def test_unknown_requests_are_given_to_each_arm_in_turn():
    found = Pair(Arm(1000, 0), Arm(2000, 0), Arm(40, 40))
    low, high = interval(found, 0.05).low, interval(found, 0.05).high
    # All forty the canary's: at least 40/1040 more; all the baseline's: at least 40/2040 less.
    assert high > 40 / 1040
    assert low < -40 / 2040
    assert not is_shown(found, 0.02, 0.05)
    assert log_e_harm(found, 0.02) < 0
    assert is_shown(Pair(Arm(1000, 0), Arm(2000, 0), Arm()), 0.02, 0.05)


def test_a_run_without_a_request_says_what_to_do(tmp_path):
    verdict = judging.judge(gallery.empty(tmp_path)).verdict
    assert verdict.word == "hold"
    assert "run again" in verdict.sentence
    assert "would not decide" not in verdict.sentence
