"""Runs of every kind, built by our own writers, and their reports in every form, to be looked at.

    python tests/analysis/gallery.py FOLDER [NAME…]

writes FOLDER/NAME/run, NAME.html and NAME.txt (80 columns, ASCII, no colour). To look at the
pages as `tests/browser/README.md` says:

    node tests/browser/pages.mjs --shots FOLDER FOLDER/*.html
"""

import io
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from analysis.judge import examine
from analysis.publish import RENDERERS, Subject
from analysis.render.terminal import print_report
from experiments.core import records
from tests.analysis.synthetic import Layout, Truth, experiment, header, misrouted, write_run

PALE = {"latency": {"p50": {"margin": 0.2}}, "split": {"tolerance": 0.1}, "errors": {"max_increase": 0.02}}
LONG = "canary-of-recommendations-2026-11-rc2"


def empty(folder: Path) -> records.RunDir:
    """The load was stopped before the first answer."""
    run = write_run(folder)
    (shard,) = run.shards()
    shard.unlink()
    appender = records.Appender(records.shard_path(run.path, "host", 100))
    appender.append(header(experiment()))
    appender.append(records.Trailer(1, 0, 0, scheduled=0))
    appender.close()
    return run


def one_arm(folder: Path) -> records.RunDir:
    """Everything goes to the baseline."""
    phases = [{"name": "dark-launch", "route": {"old": 100, "new": 0}, "for": 30.0}]
    return write_run(folder, experiment(phases=phases, claims=PALE))


def ten_arms(folder: Path) -> records.RunDir:
    """Ten models share the traffic."""
    arms = ["old", "new", *(f"arm{number}" for number in range(3, 11))]
    chosen = experiment(
        arms={arm: {"keras": "ResNet50"} for arm in arms},
        phases=[
            {"name": "dark-launch", "route": {arm: 100 if arm == "old" else 0 for arm in arms}, "for": 10.0},
            {"name": "tenths", "route": dict.fromkeys(arms, 10), "for": 60.0},
        ],
        claims=PALE,
    )
    return write_run(folder, chosen, Truth(median_ms={arm: 20.0 + place for place, arm in enumerate(arms)}))


def forty_phases(folder: Path) -> records.RunDir:
    """A slow ramp: the canary's share grows by 2.5 points each three seconds."""
    phases = [
        {"name": f"step-{step}", "route": {"old": 1000 - 25 * step, "new": 25 * step}, "for": 3.0}
        for step in range(1, 40)
    ]
    return write_run(folder, experiment(phases=[{"name": "step-0", "route": "old", "for": 3.0}, *phases], claims=PALE))


def long_names(folder: Path) -> records.RunDir:
    """Names as companies have them, five cohorts, five phases and failures of both arms."""
    arms = {"stable-of-recommendations-2026-10": {"keras": "ResNet50"}, LONG: {"keras": "ResNet101"}}
    stable = next(iter(arms))
    cohorts = {
        f"customers-of-region-{name}": {"share": 0.2, "headers": {"x-region": name}}
        for name in ("north", "south", "east", "west", "overseas")
    }
    phases = [
        {"name": f"rollout-week-{week}", "route": {stable: 100 - 10 * week, LONG: 10 * week}, "for": 15.0}
        for week in range(1, 6)
    ]
    truth = Truth(median_ms={stable: 20.0, LONG: 900.0}, failing={LONG: 0.03, stable: 0.02}, unheard=0.002)
    truth = replace(truth, serves={stable: "old", LONG: "new"})
    return write_run(folder, experiment(arms=arms, cohorts=cohorts, phases=phases, claims=PALE), truth)


def _made(truth: Truth | None = None, layout: Layout | None = None) -> Callable[[Path], records.RunDir]:
    return lambda folder: write_run(folder, truth=truth, layout=layout)


KINDS: dict[str, Callable[[Path], records.RunDir]] = {
    "promote": _made(),
    "roll-back-model": _made(Truth(failing={"new": 0.1}, median_ms={"old": 20.0, "new": 60.0})),
    "roll-back-routing": _made(misrouted("split", {"old": 0.5, "new": 0.5})),
    "hold": _made(Truth(failing={"new": 0.02})),
    "invalid": _made(Truth(), Layout(trailers=False, torn=True)),
    "strange-answers": _made(replace(Truth(), garbled=0.05, unheard=0.02)),
    "empty": empty,
    "one-arm": one_arm,
    "ten-arms": ten_arms,
    "forty-phases": forty_phases,
    "long-names": long_names,
}


def written(name: str, folder: Path) -> Subject:
    """One run of the gallery and its page and its plain text."""
    subject = Subject(examine(KINDS[name](folder / name)))
    page = RENDERERS["html"](subject)
    (folder / f"{name}.html").write_text(str(page), encoding="utf-8")
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="replace", newline="\n")
    print_report(subject.report, stream, width=80)
    stream.flush()
    (folder / f"{name}.txt").write_bytes(stream.buffer.getvalue())  # type: ignore[attr-defined]
    return subject


def main() -> None:
    """Write the gallery, or those of it that are named."""
    folder, *names = sys.argv[1:]
    for name in names or KINDS:
        subject = written(name, Path(folder))
        print(f"{name}: {subject.report.verdict.sentence}")  # noqa: T201


if __name__ == "__main__":
    main()
