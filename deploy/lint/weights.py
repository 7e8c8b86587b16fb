"""SP101, SP102: weights that mean something else than they say."""

from collections.abc import Iterator

from deploy.lint.findings import Finding
from deploy.lint.world import World, http, named, of

_WHOLE = 100


def weights(world: World) -> Iterator[Finding]:
    """A route's weights sum to 0, or not to 100."""
    for virtual in of(world, "VirtualService"):
        for index, route in enumerate(http(virtual)):
            entries = route.get("route") or []
            given = [int(entry.get("weight") or 0) for entry in entries]
            where = (named(virtual), f"spec.http[{index}].route[*].weight")
            if len(entries) > 1 and sum(given) == 0:
                yield Finding(
                    "SP101", "error", *where, f"the weights {given} sum to 0",
                    "Istio's webhook refuses it: total destination weight = 0",
                    "give at least one destination a weight",
                )  # fmt: skip
            elif len(entries) > 1 and sum(given) != _WHOLE:
                shares = ", ".join(f"{weight / sum(given):.1%}" for weight in given)
                yield Finding(
                    "SP102", "warning", *where, f"the weights {given} sum to {sum(given)}, not to 100",
                    f"weights are relative: the shares are {shares}; Istio before 1.15 refuses it",
                    "write weights that sum to 100",
                )  # fmt: skip
