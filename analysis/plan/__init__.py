"""Before the load: how likely is each claim to be shown if all is well, what would it take, and what is cheapest?

It asks the tests that will judge. A healthy run: shares as configured, failures and latencies as an earlier run of the
same experiment had them; without one nothing fails, and latencies are lognormal and the same in every arm.
"""

from analysis.plan.outlook import plan

__all__ = ["plan"]
