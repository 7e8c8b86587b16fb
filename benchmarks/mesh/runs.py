"""Whole runs of `digits` on a mesh, healthy ones and the self-test's sabotages.

`PYTHONPATH=.:tests/mesh python benchmarks/mesh/runs.py measure FILE` puts a mesh up and appends a line of JSON for each
run; `table FILE` prints what they say. The faults that a self-test puts into serving processes are put into those
behind the pods; its edits of routes go through the API.
"""

import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
from plane.mesh import Mesh, serving, standing, why_not

from analysis.findings import BROKEN
from analysis.report import Report
from deploy import models
from deploy.cluster.stack import Wanted
from deploy.embedded.faults import NO_FAULTS
from deploy.embedded.pods import fault_options
from experiments.conductor import Options, Outcome, conduct
from experiments.core import reading
from experiments.core.reading import Loaded
from experiments.core.records import read_info
from experiments.progress import Narrator
from experiments.sabotage import EXPERIMENT, HEALTHY, Sabotage, sabotages
from experiments.targets import Kubernetes, Tampering

EMBEDDED = "embedded"


@click.group()
def runs() -> None:
    """Runs on a mesh, measured and told."""


@runs.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--healthy", type=click.IntRange(min=0), default=5, help="How many healthy runs.")
@click.option("--only", multiple=True, help="These sabotages and no others; `none` for none of them.")
@click.option("--embedded", is_flag=True, help="One healthy run on the embedded stack too, to compare with.")
def measure(file: Path, healthy: int, only: tuple[str, ...], embedded: bool) -> None:  # noqa: FBT001 - a flag
    """Run, and append a line for each run to FILE."""
    loaded, narrator = reading.load(EXPERIMENT), Narrator()
    experiment = loaded.experiment
    known = sabotages(experiment.baseline, experiment.canaries[0])
    chosen = [each for each in known if not only or each.name in only]
    reason = why_not()
    if reason:
        raise click.ClickException(f"no mesh here: {reason}")
    with tempfile.TemporaryDirectory() as folder:
        if embedded:
            _append(file, EMBEDDED, None, conduct(loaded, Options(Path(folder)), narrator))
        trained = {arm: found.base_path for arm, found in models.ensure(loaded, narrator.say).items()}
        with standing(narrator.say) as mesh:
            for sabotage in [*[None] * healthy, *chosen]:
                name = sabotage.name if sabotage else "healthy"
                narrator.say(f"-- {name}")
                outcome = _run(mesh, loaded, trained, sabotage.fault if sabotage else HEALTHY, Path(folder), narrator)
                _append(file, name, sabotage, outcome)


def _run(
    mesh: Mesh, loaded: Loaded, trained: Mapping[str, Path], given: Tampering, folder: Path, narrator: Narrator
) -> Outcome:
    with _pods(mesh, loaded, trained, given), mesh.inside():
        target = Kubernetes(Wanted(context="mesh", gateway=mesh.gateway_url))
        edits = Tampering(NO_FAULTS, given.edit) if given.edit else None
        return conduct(loaded, Options(folder, edits, target), narrator)


@contextlib.contextmanager
def _pods(mesh: Mesh, loaded: Loaded, trained: Mapping[str, Path], given: Tampering) -> Iterator[None]:
    """Behind the pods that start meanwhile: our serving processes, with these faults."""
    arms = loaded.experiment.arms
    served = {arm: trained[given.faults.serves.get(arm, arm)] for arm in arms}
    options = {arm: fault_options(given.faults, arm) for arm in arms}
    rule = serving(loaded.experiment.model, served, options, app=loaded.experiment.service)
    mesh.kubelet.rules.insert(0, rule)
    with _cluster(mesh):
        yield
    mesh.kubelet.rules.remove(rule)


@contextlib.contextmanager
def _cluster(mesh: Mesh) -> Iterator[None]:
    before = os.environ.get("KUBECONFIG")
    os.environ["KUBECONFIG"] = str(mesh.kubeconfig)
    try:
        yield
    finally:
        if before is None:
            del os.environ["KUBECONFIG"]
        else:
            os.environ["KUBECONFIG"] = before


def _append(file: Path, name: str, sabotage: Sabotage | None, outcome: Outcome) -> None:
    report = outcome.report
    checks = {check.name: check.sentence for check in report.checks}
    line = {
        "name": name,
        "at": time.strftime("%Y-%m-%d %H:%M"),
        "verdict": report.verdict.word,
        "cause": report.verdict.cause,
        "sentence": report.verdict.sentence,
        "wanted": sabotage.verdict if sabotage else "promote",
        "caught": report.verdict.word == sabotage.verdict and sabotage.named_by in report.verdict.sentence
        if sabotage
        else report.verdict.word != "roll back",
        "broken": [claim.id for claim in report.claims if claim.state == BROKEN],
        "judged": report.records.judged,
        "attributed": checks.get("answers attributed", ""),
        "agreement": checks.get("route header agrees", ""),
        "shares": _split(report),
        "expectations": read_info(outcome.run).expectations,
    }
    with file.open("a") as lines:
        lines.write(json.dumps(line) + "\n")


def _split(report: Report) -> dict[str, float | None]:
    return {one.arm: one.share.estimate for one in report.shares if one.phase == "split"}


@runs.command()
@click.argument("file", type=click.Path(exists=True, path_type=Path))
def table(file: Path) -> None:
    """Print what the lines of FILE say, as Markdown."""
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    print("| run | verdict | cause | caught / not blamed | judged | attribution | route header | share in `split` |")
    print("|---|---|---|---|---|---|---|---|")
    for one in lines:
        shares = ", ".join(f"{arm} {share:.1%}" for arm, share in one["shares"].items() if share is not None)
        told = [one["name"], one["verdict"], one["cause"] or "", "yes" if one["caught"] else "**no**", one["judged"]]
        print("| " + " | ".join(map(str, [*told, one["attributed"], one["agreement"], shares])) + " |")
    expected: list[Any] = [one["expectations"] for one in lines]
    print(
        f"\nexpected shares: {'the same in all' if all(each == expected[0] for each in expected) else 'NOT THE SAME'}"
    )
    sys.exit(0 if all(one["caught"] for one in lines) else 1)


if __name__ == "__main__":
    runs()
