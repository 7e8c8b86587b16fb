"""What is found, ready for JSON: claims with their states, observations beside them, checks of validity.

Rates and shares are fractions, latencies microseconds; None means that it cannot be told, never that it is zero.
"""

import msgspec

SHOWN, BROKEN, UNDECIDED, VOID = "shown", "broken", "undecided", "void"
"""The states of a claim: proved within its margin, refuted, not enough data, or not to be judged at all."""

ROUTING, MODEL = "routing", "model"


class Interval(msgspec.Struct, frozen=True):
    """An estimate with its bounds; `level` is the confidence, for all looks together where `anytime`.

    `high` is None where the data set no upper bound.
    """

    estimate: float | None
    low: float
    high: float | None
    level: float
    anytime: bool


class Share(msgspec.Struct, frozen=True):
    """What one arm got of the requests of some cohorts in one phase.

    `expected` is None where no share is configured. `unknown` requests may belong to any arm: the interval allows that.
    `effective` is how many independent draws the requests are worth; fewer than `requests` where clients stick to arms.
    """

    phase: str
    cohorts: list[str]
    arm: str
    expected: float | None
    requests: int
    count: int
    unknown: int
    share: Interval
    effective: int | None = None


class Failures(msgspec.Struct, frozen=True):
    """How often the requests that were routed to one arm failed in one phase, and how.

    `classes` are as recorded; `kinds` sum them up: timeout, connect, 4xx, 5xx, wrong shape, not finite, other.
    """

    phase: str
    arm: str
    requests: int
    failed: int
    rate: Interval
    classes: dict[str, int]
    kinds: dict[str, int] = {}


class Latency(msgspec.Struct, frozen=True):
    """The latencies of the successful answers of one arm in one phase, all from one of their two starts.

    `intervals_us` are those of the quantiles, each for itself at one look, from time batches (Woodruff 1952), without
    an upper end where slow spells are too few to bound it; there is none where batches say nothing, nor from the
    intended start, which is not counted by batch.
    """

    phase: str
    arm: str
    requests: int
    mean_us: float | None
    quantiles_us: dict[str, float]
    intervals_us: dict[str, Interval] = {}


class Secondary(msgspec.Struct, frozen=True):
    """A statistic beside the claims, on which no verdict rests: what it says, and what it assumes to be worth anything.

    `null_value` is what the estimate would be if the arms did not differ.
    """

    phase: str
    arm: str
    name: str
    estimate: float | None
    low: float | None
    high: float | None
    level: float
    unit: str
    assumption: str
    null_value: float | None = None
    p_value: float | None = None


class Dispersion(msgspec.Struct, frozen=True):
    """How an arm's share varied over batches of windows; an index of 1 is what independent draws give.

    `effect` is how many requests are worth one independent draw.
    """

    phase: str
    cohort: str
    arm: str
    windows: int
    index: float
    p_under: float
    p_over: float
    reading: str
    effect: float = 1.0


class Drift(msgspec.Struct, frozen=True):
    """Whether an arm's share changed within a phase: at one moment (a change point), or steadily (a trend).

    `at_s` is the likeliest moment, in seconds from the start of the phase; a diagnostic on which no claim is broken.
    """

    phase: str
    cohorts: list[str]
    arm: str
    windows: int
    at_s: float
    before: float
    after: float
    statistic: float
    p_value: float
    trend_p_value: float | None
    reading: str


class Need(msgspec.Struct, frozen=True):
    """What an undecided claim still lacks, if things stay as they look; seconds of its phase under the same load."""

    requests: int
    seconds: float


class Claim(msgspec.Struct, frozen=True):
    """A claim and how it was judged.

    `cause` is what is at fault if it is broken; `void_by` what is at fault if it cannot be judged, where that is known.
    """

    id: str
    kind: str
    required: bool
    state: str
    cause: str
    sentence: str
    test: str
    null: str
    requests: int
    unit: str
    margin_low: float | None = None
    margin_high: float | None = None
    interval: Interval | None = None
    fixed: Interval | None = None
    fixed_test: str | None = None
    fixed_p_value: float | None = None
    p_value: float | None = None
    ln_e_value: float | None = None
    certain: bool = False
    need: Need | None = None
    phase: str | None = None
    arm: str | None = None
    reason: str = ""
    effective: int | None = None
    void_by: str | None = None


class Check(msgspec.Struct, frozen=True):
    """A condition of validity: `ok`, or `failed` with the kinds of claims that it touches.

    `voids` are kinds that may not be judged at all; `weakens` kinds that can still be broken, but not shown: in these
    `phases`, of these `arms`, or of all. `cause` is what is at fault, where that is known.
    """

    name: str
    ok: bool
    sentence: str
    voids: list[str] = []
    weakens: list[str] = []
    phases: list[str] | None = None
    cause: str | None = None
    arms: list[str] | None = None


class Outputs(msgspec.Struct, frozen=True):
    """How often two arms name the same class for the same payload; how often each is right where labels are known.

    `agreeing_top5`: the baseline's first class is among the arm's first five. `distance` is the total variation between
    the two outputs, over payloads. `p_value` is McNemar's, exact, over distinct payloads: does one arm err more often?
    `accuracy` are intervals of Clopper & Pearson, of the arm and of the baseline.
    """

    arm: str
    baseline: str
    payloads: int
    agreeing: int
    labelled: int
    right: int
    baseline_right: int
    only_arm_right: int
    only_baseline_right: int
    agreeing_top5: int = 0
    distance_mean: float | None = None
    distance_max: float | None = None
    p_value: float | None = None
    accuracy: list[Interval] = []
