"""Numbers and lists as people read them."""

import math
from collections.abc import Sequence

_LEAST_PERCENT = 0.001
"""Below it a figure would need an exponent, which nobody reads."""


def percent(fraction: float | None, digits: int = 1) -> str:
    """A share.

    >>> percent(0.3), percent(0.0004), percent(1.0, 0), percent(1e-8), percent(None)
    ('30%', '0.04%', '100%', 'under 0.001%', 'unknown')
    """
    if fraction is None:
        return "unknown"
    value = 100 * fraction
    if 0 < value < _LEAST_PERCENT:
        return f"under {_LEAST_PERCENT}%"
    if 0 < abs(value) < 10**-digits:
        return f"{value:.1g}%"
    return _plain(f"{value:.{digits}f}") + "%"


def _plain(text: str) -> str:
    """Without zeros at the end of the decimals."""
    return text.rstrip("0").rstrip(".") if "." in text else text


def points(fraction: float, *, signed: bool = False) -> str:
    """A difference of shares.

    >>> points(0.05), points(0.012, signed=True)
    ('5 pp', '+1.2 pp')
    """
    text = _plain(f"{100 * fraction:{'+' if signed else ''}.2f}")
    return f"{'0' if text in ('-0', '+0') else text} pp"


def increase(ratio: float) -> str:
    """A ratio as a change.

    >>> increase(1.5), increase(0.9), increase(1.0)
    ('50% slower', '10% faster', 'as fast')
    """
    change = 100 * (ratio - 1)
    if abs(change) < 0.5:  # noqa: PLR2004 - rounds to nothing
        return "as fast"
    return f"{abs(change):.0f}% {'slower' if change > 0 else 'faster'}"


def milliseconds(us: float | None) -> str:
    """A latency.

    >>> milliseconds(1234), milliseconds(123456), milliseconds(None)
    ('1.23 ms', '123 ms', 'unknown')
    """
    if us is None:
        return "unknown"
    value = us / 1000
    for digits, limit in ((2, 10), (1, 100)):
        if value < limit:
            return f"{value:.{digits}f} ms"
    return f"{value:,.0f} ms"


def count(number: float) -> str:
    """A count with thousands separated.

    >>> count(12345)
    '12,345'
    """
    return f"{number:,.0f}"


def requests(number: float) -> str:
    """A number of requests.

    >>> requests(1), requests(1200)
    ('1 request', '1,200 requests')
    """
    return f"{count(number)} request{'' if round(number) == 1 else 's'}"


def roughly(number: float) -> str:
    """A number of requests that was estimated: its first two digits, rounded up.

    >>> roughly(737_790), roughly(12), roughly(1)
    ('740,000 requests', '12 requests', '1 request')
    """
    unit = 10 ** max(len(str(math.ceil(number))) - 2, 0)
    return requests(math.ceil(number / unit) * unit)


def listed(names: Sequence[str]) -> str:
    """A list of names.

    >>> listed(["a"]), listed(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else "nobody"


def duration(seconds: float) -> str:
    """A time in the unit that suits it.

    >>> duration(42), duration(600), duration(90000)
    ('42 s', '10 min', '25 h')
    """
    if seconds < 120:  # noqa: PLR2004 - two minutes
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"  # noqa: PLR2004 - two hours


def level(alpha: float) -> str:
    """The confidence of an interval.

    >>> level(0.025)
    '97.5%'
    """
    return percent(1 - alpha, 3)
