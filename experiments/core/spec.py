"""What an experiment is: arms, payloads, cohorts, phases, load and claims (all frozen, all validated)."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from experiments.core.quantities import MOST_PER_SECOND, Increase, Limit, PerSecond, Points, Rates, Seconds, Share

Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,40}[a-z0-9])?$")]
"""A DNS label: it becomes part of Kubernetes object names."""


class Frozen(BaseModel):
    """A noun: no field changes after reading, and no unknown key is let through."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class DigitsModel(Frozen):
    """A small classifier that is trained on the spot on scikit-learn's bundled digits."""

    hidden: tuple[Annotated[int, Field(ge=1, le=4096)], ...] = Field((32,), description="Units of each hidden layer.")
    epochs: int = Field(15, ge=1, le=500)
    seed: int = Field(1, ge=0)


class Arm(Frozen):
    """One model; exactly one of `keras`, `saved_model` and `digits` says where it comes from.

    With `attach: true` no arm need say it: then what its pods answer before the load is what it is known by.
    """

    keras: str | None = Field(None, description="A name in keras.applications, or a .keras file.")
    saved_model: str | None = Field(None, description="A SavedModel directory.")
    digits: DigitsModel | None = Field(None, description="Train a small classifier of handwritten digits.")
    weights: Literal["auto", "imagenet", "random"] = Field(
        "auto",
        description="For keras.applications: auto takes imagenet where it can be downloaded, else random.",
    )
    seed: int = Field(1, ge=0, description="Seed of random weights.")


class DigitsPayloads(Frozen):
    """Labelled images from the held-out half of scikit-learn's digits."""

    digits: int = Field(..., ge=1, le=500, description="How many distinct images.")


_EVERY_REQUESTS_OWN = ("x-request-id", "content-length", "transfer-encoding")


class Cohort(Frozen):
    """A group of senders: its share of the arrivals and the headers that it sends."""

    share: Share
    headers: dict[str, str] = Field(
        default_factory=dict,
        description="A value may hold ${NAME}, a variable of the environment; it is put in when a request is sent, and "
        "written nowhere.",
    )
    connections: Annotated[str, Field(pattern=r"^(per-user|per-request|pool:[1-9]\d{0,3})$")] | None = Field(
        None,
        description="per-user: each user (in the open loop, each slot) keeps one of its own. per-request: a new one "
        "each time. pool:N: at most N, kept, in each load process. Default: open loop, as many as requests are in "
        "flight, kept, the last used first; closed loop, per-user.",
    )

    @field_validator("headers")
    @classmethod
    def _no_second_one(cls, headers: dict[str, str]) -> dict[str, str]:
        for name in headers:
            if name.lower() in _EVERY_REQUESTS_OWN:
                raise ValueError(f"{name}: every request has one of its own already; leave it out.")
        return headers


class TextMatch(Frozen):
    """Istio's StringMatch: exactly one of the three."""

    exact: str | None = None
    prefix: str | None = None
    regex: str | None = None


def _as_text_match(value: Any) -> Any:
    return {"exact": value} if isinstance(value, str) else value


Match = Annotated[TextMatch, BeforeValidator(_as_text_match)]
"""A TextMatch; bare text means `exact`."""


class When(Frozen):
    """One match block: every condition in it must hold."""

    headers: dict[str, Match] = Field(default_factory=dict)
    without_headers: dict[str, Match] = Field(default_factory=dict)
    uri: Match | None = None


_WHEN_KEYS = {"headers", "without_headers", "uri"}


def _as_when(value: Any) -> Any:
    """`{user-group: canary}` is short for `[{headers: {user-group: canary}}]`."""
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, (list, tuple)):
        return value
    return [
        {"headers": block} if isinstance(block, dict) and not (_WHEN_KEYS & set(block)) else block for block in value
    ]


def _as_weights(value: Any) -> Any:
    return {value: 100} if isinstance(value, str) else value


class Rule(Frozen):
    """Where requests go that match any block of `when`; an empty `when` takes all that is left."""

    when: Annotated[tuple[When, ...], BeforeValidator(_as_when)] = ()
    to: Annotated[dict[str, Annotated[int, Field(ge=0)]], BeforeValidator(_as_weights)]


class Route(Frozen):
    """A routing: rules in order, or the Service without subsets, or somebody's own VirtualService."""

    rules: tuple[Rule, ...] = ()
    service: bool = Field(default=False, description="Send to the Service itself: no subset, no weight.")
    virtual_service: str | None = Field(None, description="A file with a VirtualService to apply as it is.")


def _as_route(value: Any) -> Any:
    """Canonical form of the three ways to write a route."""
    if value == "service":
        return {"service": True}
    if isinstance(value, str):
        return {"rules": [{"to": value}]}
    if isinstance(value, list):
        return {"rules": value}
    if isinstance(value, dict) and not set(value) & {"rules", "service", "virtual_service"}:
        return {"rules": [{"to": value}]}
    return value


class Phase(Frozen):
    """One routing, applied for a time."""

    name: Name
    route: Annotated[Route, BeforeValidator(_as_route)]
    duration: Seconds = Field(30.0, alias="for", gt=0)
    gate: bool = Field(
        default=False,
        description="Go on to the next phase only once the evidence so far allows it; `for` is the most that it takes.",
    )
    rollback: bool = Field(
        default=False, description="Applied only when a claim breaks in a gated phase; the run ends after it."
    )
    arms: tuple[Name, ...] | None = Field(None, description="Arms deployed in this phase; all, if left out.")
    expect: dict[str, dict[str, Share]] | None = Field(
        None, description="Cohort to arm to share: the intent, where the route's own file is under suspicion."
    )


class Step(Frozen):
    """A rate that holds, or a ramp from one rate to another, for a time; without `for`, until the end of the load."""

    arrivals: Rates
    duration: Annotated[Seconds, Field(gt=0)] | None = Field(None, alias="for")


class Load(Frozen):
    """Open-loop arrivals: a schedule drawn from a seed, whatever the answers do.

    `arrivals` is one rate for all of the load; `steps`, in its place, are rates and ramps one after another, counted
    from the end of warm-up; the last one's rate holds until the end.
    """

    arrivals: Annotated[PerSecond, Field(gt=0, le=MOST_PER_SECOND)] | None = None
    steps: tuple[Step, ...] = ()
    pattern: Literal["constant", "poisson"] = "constant"
    warmup: Seconds = Field(5.0, ge=0)
    timeout: Seconds = Field(10.0, gt=0)
    slots: int = Field(64, ge=1, le=10_000, description="Requests that may be in flight at once, over all processes.")
    seed: int = Field(1, ge=0)

    @property
    def rate(self) -> float:
        """Arrivals per second where there are no steps; 8 unless the experiment says otherwise."""
        return 8.0 if self.arrivals is None else self.arrivals


def _as_load(value: Any) -> Any:
    """`[{arrivals: 5/s, for: 30s}, …]` is short for `{steps: …}`, and so is one step beside other settings."""
    if isinstance(value, (list, tuple)):
        return {"steps": value}
    if not isinstance(value, dict) or not ("for" in value or ".." in str(value.get("arrivals"))):
        return value
    step = {key: value[key] for key in ("arrivals", "for") if key in value}
    return {**{key: given for key, given in value.items() if key not in step}, "steps": [step]}


class SplitClaim(Frozen):
    """Each cohort's shares lie within `tolerance` of what its route says."""

    tolerance: Points = Field(0.05, gt=0, le=1)
    required: bool = True


class ErrorsClaim(Frozen):
    """The failure rate of any other arm exceeds the baseline's by less than `max_increase`."""

    max_increase: Points = Field(0.01, gt=0, le=1)
    required: bool = True


class LatencyClaim(Frozen):
    """A quantile, or the mean, of any other arm's latency exceeds the baseline's by less than `margin`.

    `limit` is absolute: the arm's own quantile, counted from the intended start, stays below it. Either, or both.
    """

    margin: Annotated[Increase, Field(gt=0)] | None = None
    limit: Annotated[Limit, Field(gt=0)] | None = None
    required: bool = True

    @model_validator(mode="after")
    def _says_something(self) -> "LatencyClaim":
        if self.margin is None and self.limit is None:
            raise ValueError("needs a margin such as +20% or a limit such as < 250ms; give one.")
        return self


def _as_latency(value: Any) -> Any:
    if isinstance(value, str) and value.lstrip().startswith("<"):
        return {"limit": value}
    return {"margin": value} if isinstance(value, (str, float)) else value


Measure = Annotated[str, Field(pattern=r"^(mean|p(50|[5-9]\d(\.\d+)?))$")]
"""`mean`, or a quantile from p50 to p99.9 and beyond."""


class Claims(Frozen):
    """What must hold for the canary to be promoted."""

    split: SplitClaim = SplitClaim()
    errors: ErrorsClaim = ErrorsClaim()
    latency: dict[Measure, Annotated[LatencyClaim, BeforeValidator(_as_latency)]] = Field(
        default_factory=lambda: {"p50": LatencyClaim(margin=0.2)}
    )


class Entrance(Frozen):
    """How the gateway is asked, where its URL does not say it: many names may be served behind one address."""

    host: Annotated[str, Field(pattern=r"^[A-Za-z0-9._:\[\]-]{1,255}$")] | None = Field(
        None, description="The Host header; the URL's own host if left out."
    )
    sni: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,253}$")] | None = Field(
        None, description="The name asked for, and verified, over TLS: by default `host`, else the URL's own."
    )


class AbortIf(Frozen):
    """When a run ends at once, whatever it still lacks: any arm's failures or latency in its last ten seconds."""

    errors: Annotated[Share, Field(gt=0)] | None = Field(None, description="Above this share of failures.")
    p99: Annotated[Seconds, Field(gt=0)] | None = Field(None, description="Above this 99th percentile of latency.")


class Experiment(Frozen):
    """A canary experiment: what is served, who asks, how traffic is routed, and what must hold."""

    name: Name = "experiment"
    description: str = ""
    model: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,80}$")] = Field(
        "image_classifier", description="MODEL_NAME, shared by every arm: clients use one URL."
    )
    arms: dict[Name, Arm] = Field(..., min_length=2, description="The first is the baseline.")
    payloads: tuple[str, ...] | DigitsPayloads = Field(..., description="Globs of images or .json request bodies.")
    cohorts: dict[Name, Cohort] = Field(default_factory=lambda: {"everyone": Cohort(share=1.0)}, min_length=1)
    phases: tuple[Phase, ...] = Field(..., min_length=1)
    load: Annotated[Load, BeforeValidator(_as_load)] = Load()
    claims: Claims = Claims()
    attribution: Literal["output", "route-header"] = "output"
    namespace: Name = "tf-serving"
    gateway: Entrance = Entrance()
    attach: bool = Field(
        default=False,
        description="On a cluster: use the Service, the pods and the VirtualService that are there, change its routes "
        "only, and put them back; nothing is created or deleted.",
    )
    on_end: Literal["restore", "baseline", "canary", "leave"] = Field(
        "restore",
        description="What becomes of the routes of a stack that was up before the run, on a signal too: as they were, "
        "all to one arm, or as the last phase left them.",
    )
    max_rate: Annotated[PerSecond, Field(gt=0)] | None = Field(
        None, description="Arrivals above this rate are refused before the load."
    )
    abort_if: AbortIf | None = None

    @property
    def named(self) -> bool:
        """Whether every arm names its model; attached ones may leave it to what their pods answer."""
        return all(arm.keras or arm.saved_model or arm.digits for arm in self.arms.values())

    @property
    def baseline(self) -> str:
        """The arm that the others are compared with."""
        return next(iter(self.arms))

    @property
    def canaries(self) -> tuple[str, ...]:
        """Every arm but the baseline."""
        return tuple(self.arms)[1:]

    @property
    def service(self) -> str:
        """The Kubernetes name of the Service, VirtualService and DestinationRule."""
        return self.model.lower().replace("_", "-").replace(".", "-").strip("-") or "model"

    def phase(self, name: str) -> Phase:
        """The phase called `name`; raises KeyError."""
        found = {phase.name: phase for phase in self.phases}
        return found[name]

    @property
    def planned(self) -> tuple[Phase, ...]:
        """The phases that a run goes through if nothing breaks."""
        return tuple(phase for phase in self.phases if not phase.rollback)

    @property
    def rollback(self) -> Phase | None:
        """The phase that a run goes to when a claim breaks in a gated phase."""
        return next((phase for phase in self.phases if phase.rollback), None)

    def deployed(self, phase: Phase) -> tuple[str, ...]:
        """The arms that are deployed in a phase, in the experiment's order."""
        return tuple(self.arms) if phase.arms is None else tuple(arm for arm in self.arms if arm in phase.arms)
