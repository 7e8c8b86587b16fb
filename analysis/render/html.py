"""Report → one HTML file that needs no network and, to be read, no scripts; with them its pictures come alive.

The page forbids itself everything but its own scripts, by their hashes: words that somebody else chose could not run
even if they got past the escaping.
"""

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from analysis import words
from analysis.findings import BROKEN, SHOWN, UNDECIDED, VOID
from analysis.pictures.shown import Sheet
from analysis.render import drawing, runtime
from analysis.render.cells import run_cells, sections, trend_cells
from analysis.render.text import safe
from analysis.report import Report
from analysis.verdict import HOLD, INVALID, PROMOTE, ROLL_BACK

LIMIT_BYTES = 1_500_000
_MOST_TRENDS = 2000
_LEAST = 2
_FOLDER = Path(__file__).resolve().parent
_TEMPLATES = ("run.html.jinja", "page.html.jinja", "parts.html.jinja")
_SIGNS = {PROMOTE: "✓", ROLL_BACK: "✗", HOLD: "…", INVALID: "?"}
_STATE_SIGNS = {SHOWN: "✓", BROKEN: "✗", UNDECIDED: "…", VOID: "?"}
_WORST = (BROKEN, VOID, UNDECIDED, SHOWN)
_KINDS = {
    "split": "Was the traffic split as configured?",
    "errors": "Does it fail as rarely?",
    "latency": "Is it as fast?",
    "outputs": "Is it as right?",
}
NO_PICTURES = (
    "No pictures: they need the packages of the extra `pictures` (pip install -c constraints.txt -e '.[pictures]'). "
    "All numbers are below."
)


@dataclass(frozen=True)
class Shown:
    """A picture as the page has it: still, alive, or both."""

    name: str
    title: str
    text: str
    still: Markup | None
    live: bool
    switches: dict[str, list[str]]
    chosen: dict[str, str]

    @property
    def broad(self) -> bool:
        """Whether it needs more than a phone's width: there it is scrolled sideways."""
        return self.name == "routes"


Drawn = Future[list[drawing.Drawing]]
"""Pictures with their stills, which may still be on their way."""

_NOTHING = drawing.done([])


def draw(sheets: Iterable[Sheet]) -> Drawn:
    """The pictures of a run, none without the extra `pictures`."""
    return drawing.begun(sheets) if runtime.available() else _NOTHING


def prepare() -> None:
    """Do what a run's page needs whatever it says: its templates are compiled, and the runtime is read."""
    for name in _TEMPLATES:
        _environment().get_template(name)
    if runtime.available():
        runtime.javascript()


def render_html(report: Report, drawn: Drawn | None) -> str:
    """The report as a page.

    Args:
        report: What to say.
        drawn: Its pictures; without them the page has tables only.
    """
    values = {
        "report": report,
        "heading": f"{report.verdict.word}: {report.subject.experiment}",
        "question": question(report),
        "sign": _SIGNS[report.verdict.word],
        "started": started(report),
        "answers": _answers(report),
        "sections": sections(report),
        "no_pictures": NO_PICTURES if drawn is not None else "No pictures were asked for.",
    }
    return page("run.html.jinja", values, drawn or _NOTHING)


def render_comparison(reports: Sequence[Report], rows: Sequence[dict[str, Any]]) -> str:
    """Several runs as one page.

    Args:
        reports: In the order to show; the last one's verdict heads the page.
        rows: Of `analysis.trend.trend`, by claim.
    """
    drawn = _NOTHING
    if runtime.available():
        from analysis.render.charts.trend import trend_chart

        drawn = drawing.done(drawing.with_stills([picture for picture in [trend_chart(rows)] if picture is not None]))
    values = {
        "reports": reports,
        "heading": f"{len(reports)} runs: {reports[-1].verdict.word}",
        "sign": _SIGNS[reports[-1].verdict.word],
        "runs": [run_cells(place, report, started(report)) for place, report in enumerate(reports, 1)],
        "claims": [trend_cells(row) for row in rows[:_MOST_TRENDS]],
        "no_pictures": NO_PICTURES,
    }
    return page("trend.html.jinja", values, drawn)


def started(report: Report) -> str:
    """When the run began, in UTC: the same words in every time zone."""
    return datetime.fromtimestamp(report.subject.started_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def question(report: Report) -> str:
    """What the run was to answer."""
    canaries = words.listed([safe(arm) for arm in report.subject.arms if arm != report.subject.baseline])
    base = safe(report.subject.baseline)
    return f"Can {canaries} take over from {base}? {words.requests(report.records.judged)} judged."


def page(template: str, values: dict[str, Any], made: Drawn) -> str:
    """A page of ours, small enough: still pictures are left out from the last on, but for two, then whole ones."""
    drawn = [picture for picture, _ in made.result()]
    stills = [drawing.shown(svg) for _, svg in made.result()]
    alive = bool(drawn)
    while True:
        shown = [
            Shown(one.name, one.title, one.text, Markup(svg) if svg else None, alive, one.switches, one.chosen)  # noqa: S704 - drawn by vl-convert, which escapes
            for one, svg in zip(drawn, stills, strict=True)
        ]
        whole = _filled(template, {**values, "pictures": shown}, drawn)
        if len(whole.encode()) < LIMIT_BYTES or not drawn:
            return whole
        if any(stills[_LEAST:]):
            stills[max(place for place, svg in enumerate(stills) if svg)] = ""
        else:
            drawn, stills = drawn[:-1], stills[:-1]


def _filled(template: str, values: dict[str, Any], drawn: Sequence[Any]) -> str:
    bundle = runtime.javascript() if drawn else ""
    script = (_FOLDER / "page.js").read_text(encoding="utf-8")
    hashes = " ".join(_hash(text) for text in (bundle, script) if text)
    specs = json.dumps({one.name: _packed(one.spec) for one in drawn}, ensure_ascii=False, separators=(",", ":"))
    return (
        _environment()
        .get_template(template)
        .render(
            **values,
            css=Markup((_FOLDER / "page.css").read_text(encoding="utf-8")),  # noqa: S704 - our own file
            script=Markup(script),  # noqa: S704 - our own file
            runtime=Markup(bundle),  # noqa: S704 - from vl-convert
            specs=Markup(_inert(specs)),  # noqa: S704 - made inert
            script_hashes=Markup(hashes),  # noqa: S704 - base64
            schema_version=1,
        )
    )


def _packed(spec: dict[str, Any]) -> dict[str, Any]:
    """A specification with its rows as columns and lists of values, which is half as long; page.js unpacks it."""
    sets = {}
    for name, rows in spec["datasets"].items():
        columns = list(dict.fromkeys(key for row in rows for key in row))
        sets[name] = {"columns": columns, "rows": [[row.get(key) for key in columns] for row in rows]}
    return {**spec, "datasets": sets}


def _inert(text: str) -> str:
    r"""JSON that can neither end its script element nor open a comment.

    >>> _inert('"</script>"')
    '"\\u003c/script\\u003e"'
    """
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _hash(text: str) -> str:
    """A source expression of a Content-Security-Policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@cache
def _environment() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=False
    )
    made.filters["safe_text"] = safe
    made.filters["trim_sign"] = lambda text: text.removeprefix(">")
    return made


def _answers(report: Report) -> list[dict[str, str]]:
    """One answer for each kind of claim: how many are shown, and the worst of them."""
    found = []
    for kind in dict.fromkeys(claim.kind for claim in report.claims):
        claims = [claim for claim in report.claims if claim.kind == kind]
        worst = min(claims, key=lambda claim: _WORST.index(claim.state))
        found.append(
            {
                "title": _KINDS.get(kind, kind),
                "state": worst.state,
                "sign": _STATE_SIGNS[worst.state],
                "told": f"{sum(claim.state == SHOWN for claim in claims)} of {len(claims)} shown",
                "sentence": _most_telling(claims, worst.state, report).sentence,
            }
        )
    return found


def _most_telling(claims: Sequence[Any], state: str, report: Report) -> Any:
    """Of the worst claims the one about a phase in which arms share the traffic, if there is one."""
    mixed = {share.phase for share in report.shares if share.expected is not None and 0 < share.expected < 1}
    worst = [claim for claim in claims if claim.state == state]
    return next((claim for claim in worst if claim.phase in mixed), worst[0])
