"""Rows → Vega-Lite, by Altair: one function a picture, every parameter named."""

from altair.utils import schemapi

from analysis.pictures.shown import Sheet
from analysis.render.charts.answers import failures, signatures
from analysis.render.charts.latencies import heat, quantiles
from analysis.render.charts.routes import routes
from analysis.render.charts.shares import evidence, shares
from analysis.render.picture import Picture

ORDER = ("shares", "quantiles", "routes", "heat", "failures", "signatures", "evidence")
"""The names of the pictures as a page shows them: the most telling first."""


def charts(sheet: Sheet) -> list[Picture]:
    """Every picture that has something to show."""
    subject, report, data = sheet.subject, sheet.report, sheet.rows
    # Altair would hold every part against the whole schema as it is made, which takes longer than drawing it.
    with schemapi.debug_mode(arg=False):
        made = [heat(subject, data), failures(data), signatures(subject, data), evidence(data)]
        if report is not None:
            made += [shares(report, data), quantiles(report, data), routes(report, data)]
    return [picture for picture in made if picture is not None]
