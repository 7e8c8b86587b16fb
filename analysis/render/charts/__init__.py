"""Rows → Vega-Lite, by Altair: one function a picture, every parameter named."""

from altair.utils import schemapi

from analysis.pictures.shown import Pictures
from analysis.render.charts.answers import failures, signatures
from analysis.render.charts.latencies import heat, quantiles
from analysis.render.charts.routes import routes
from analysis.render.charts.shares import evidence, shares
from analysis.render.picture import Picture
from analysis.report import Report

ORDER = ("shares", "quantiles", "routes", "heat", "failures", "signatures", "evidence")
"""The names of the pictures as a page shows them: the most telling first."""


def charts(report: Report, data: Pictures) -> list[Picture]:
    """Every picture that has something to show, in `ORDER`."""
    # Altair would hold every part against the whole schema as it is made, which takes longer than drawing it.
    with schemapi.debug_mode(arg=False):
        made = [
            shares(report, data),
            quantiles(report, data),
            routes(report, data),
            heat(report, data),
            failures(data),
            signatures(report, data),
            evidence(data),
        ]
    return [picture for picture in made if picture is not None]
