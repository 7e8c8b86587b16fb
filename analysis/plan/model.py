"""What a plan says: the outlook of every claim, and the designs that were compared."""

from dataclasses import dataclass

POWER = 0.9
"""The chance of being shown, if all is well, that a plan asks for where nobody says otherwise."""


@dataclass(frozen=True)
class Outlook:
    """One claim: the requests that it will have, the chance that it is shown if all is well, and what more would take.

    `needed` and `seconds` are the requests of the claim and the length of its phase at which the chance reaches
    `power`; None where no amount would do. `error` is the standard error of a simulated chance, 0 of an exact one.
    """

    id: str
    required: bool
    phase: str | None
    requests: float
    chance: float
    error: float
    power: float
    needed: float | None
    seconds: float | None
    assumption: str

    @property
    def decidable(self) -> bool:
        """Whether the load is enough."""
        return self.chance >= self.power


@dataclass(frozen=True)
class Design:
    """A canary weight and a rate of arrivals, with how long each phase must then be; None: no length would do.

    `bottleneck` is the claim that needs the longest phase.
    """

    weight: int
    arrivals: float
    phases: dict[str, float] | None
    bottleneck: str | None

    @property
    def seconds(self) -> float | None:
        """The length of all phases together."""
        return None if self.phases is None else sum(self.phases.values())

    @property
    def requests(self) -> float | None:
        """Arrivals over that length."""
        return None if self.seconds is None else self.seconds * self.arrivals


@dataclass(frozen=True)
class Designs:
    """Weights of the canary in one phase that were compared, the planned one among them."""

    phase: str
    canary: str
    planned: Design
    compared: tuple[Design, ...]

    @property
    def cheapest(self) -> Design:
        """The shortest at the planned arrivals; of equals the one nearest to what is planned."""
        able = [one for one in (self.planned, *self.compared) if one.seconds is not None]
        same = [one for one in able if one.arrivals == self.planned.arrivals]
        return min(same, key=lambda one: one.seconds or 0.0) if same else self.planned


@dataclass(frozen=True)
class Plan:
    """The outlook of every claim; `history` says which run its variances are from."""

    experiment: str
    power: float
    history: str
    outlooks: tuple[Outlook, ...]
    durations: dict[str, float]
    designs: Designs | None = None

    @property
    def undecidable(self) -> tuple[Outlook, ...]:
        """Required claims that this load will probably not decide."""
        return tuple(one for one in self.outlooks if one.required and not one.decidable)

    @property
    def bottleneck(self) -> Outlook | None:
        """The required claim that needs the most of its phase; one that no load decides comes first."""
        placed = [one for one in self.outlooks if one.required]
        if not placed:
            return None
        return max(placed, key=lambda one: float("inf") if one.seconds is None else one.seconds / self._length(one))

    def _length(self, one: Outlook) -> float:
        return self.durations[one.phase] if one.phase else 1.0

    def lines(self) -> list[str]:
        """What to tell before the run."""
        from analysis.plan.lines import lines

        return lines(self)
