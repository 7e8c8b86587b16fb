"""Every public function of `analysis.stats` says where it is from, and shows a figure that came out."""

import re

import pytest

from tests.analysis.test_extremes_everywhere import FUNCTIONS

# A year, as papers are named by; the boundaries' module names its two papers by their letters.
SOURCE = re.compile(r"\b(18|19|20)\d\d\b|arXiv|\(HRMS|\(HR,|Source: HR,")

OURS = {
    "batches.scales": "which batches go together is ours; calibrated in benchmarks/calibration/latency.py",
    "batches.scored": "likewise",
    "batches.weather": "likewise",
    "bins.bin_of": "a layout of bins, no statistic",
    "bins.lower_edge": "likewise",
    "bins.middle": "likewise",
    "bins.quantile_bin": "the definition of a quantile",
    "dispersion.merged": "sums",
    "exceedances.needed": "a rule of ours: ten beyond",
    "means.variance_of": "the definition of a variance",
    "multinomial.log_mean_exp": "the definition of a mean",
    "quantiles.at_rank": "the definition of an order statistic",
    "ranks.aligned": "puts counts side by side",
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_public_function_has_a_doctest_and_a_source(name):
    told = FUNCTIONS[name].__doc__ or ""
    assert ">>> " in told, f"{name}: no doctest"
    of_module = name.startswith("distributions.")  # one source for all: the handbook that its module names
    assert of_module or (name in OURS) != bool(SOURCE.search(told)), f"{name}: no source, or one and a reason for none"


def test_reasons_are_of_functions_that_there_are():
    assert set(OURS) <= set(FUNCTIONS)


# What claims to be a p-value, an interval, an e-value or a bound on chance, and not the arithmetic beneath one.
CLAIMING = re.compile(
    r"p_value|_p$|interval|sequence|log_e_|^bernoulli\.|^multinomial\.observe$|radius|wilson|newcombe|holm|hochberg"
)
ASSUMING = re.compile(r"break|[Ii]ndependent|[Aa]ssum|whatever their dependence|positively dependent|is as for|Null:")
ARITHMETIC = {"likelihood.divergence_interval", "multinomial.observed_gap"}


@pytest.mark.parametrize("name", [one for one in FUNCTIONS if CLAIMING.search(one) and one not in ARITHMETIC])
def test_what_claims_a_chance_says_what_it_assumes(name):
    assert ASSUMING.search(FUNCTIONS[name].__doc__ or ""), f"{name}: its null, and what breaks it?"
