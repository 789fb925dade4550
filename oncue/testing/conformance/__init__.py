"""The suite that every engine passes: each promise of `oncue.engine`, operation by operation.

An engine's author writes one class, which says how an engine on an empty store is made:

    class TestMyEngine(EngineConformance):
        @pytest.fixture
        def new_engine(self, tmp_path: Path) -> Engine:
            return MyEngine(f"mine:///{tmp_path}/jobs")

The engine is opened and closed by the suite; a fixture that yields cleans up behind it. Every case runs on the engine
itself and again with every write sent twice (`oncue.testing.Twice`), and after every case the counts, lists and records
of the store are compared with each other. A store that ends with its last connection sets `keeps_jobs_when_closed` to
False. For one operation alone, take its class (`ClaimConformance`, …) as the base.

The cases need pytest and its plugin of the package `anyio`. They leave out what only several processes, a broken
network or a full disk can show.
"""

from __future__ import annotations

from collections import Counter

import pytest

_OPERATIONS = (
    "enqueue",
    "identity",
    "dependencies",
    "claim",
    "heartbeat",
    "finish",
    "rescue",
    "prune",
    "cancel",
    "retry",
    "delete",
    "queues",
    "reads",
    "listing",
    "metrics",
    "feed",
    "hints",
    "lifecycle",
    "hostile",
    "concurrency",
    "regressions",
)
# Outside the folders that pytest collects, a bare `assert` would fail without showing the values.
pytest.register_assert_rewrite(*[f"{__name__}.{name}" for name in (*_OPERATIONS, "steps", "invariants")])

# isort: split
from oncue.testing.conformance.base import Conformance  # noqa: E402
from oncue.testing.conformance.cancel import CancelConformance  # noqa: E402
from oncue.testing.conformance.claim import ClaimConformance  # noqa: E402
from oncue.testing.conformance.concurrency import ConcurrencyConformance  # noqa: E402
from oncue.testing.conformance.delete import DeleteConformance  # noqa: E402
from oncue.testing.conformance.dependencies import DependenciesConformance  # noqa: E402
from oncue.testing.conformance.enqueue import EnqueueConformance  # noqa: E402
from oncue.testing.conformance.feed import FeedConformance  # noqa: E402
from oncue.testing.conformance.finish import FinishConformance  # noqa: E402
from oncue.testing.conformance.heartbeat import HeartbeatConformance  # noqa: E402
from oncue.testing.conformance.hints import HintsConformance  # noqa: E402
from oncue.testing.conformance.hostile import HostileConformance  # noqa: E402
from oncue.testing.conformance.identity import IdentityConformance  # noqa: E402
from oncue.testing.conformance.invariants import check_invariants  # noqa: E402
from oncue.testing.conformance.lifecycle import LifecycleConformance  # noqa: E402
from oncue.testing.conformance.listing import ListingConformance  # noqa: E402
from oncue.testing.conformance.metrics import MetricsConformance  # noqa: E402
from oncue.testing.conformance.prune import PruneConformance  # noqa: E402
from oncue.testing.conformance.queues import QueuesConformance  # noqa: E402
from oncue.testing.conformance.reads import ReadsConformance  # noqa: E402
from oncue.testing.conformance.regressions import RegressionsConformance  # noqa: E402
from oncue.testing.conformance.rescue import RescueConformance  # noqa: E402
from oncue.testing.conformance.retry import RetryConformance  # noqa: E402

__all__ = [
    "CancelConformance",
    "ClaimConformance",
    "ConcurrencyConformance",
    "Conformance",
    "DeleteConformance",
    "DependenciesConformance",
    "EngineConformance",
    "EnqueueConformance",
    "FeedConformance",
    "FinishConformance",
    "HeartbeatConformance",
    "HintsConformance",
    "HostileConformance",
    "IdentityConformance",
    "LifecycleConformance",
    "ListingConformance",
    "MetricsConformance",
    "PruneConformance",
    "QueuesConformance",
    "ReadsConformance",
    "RegressionsConformance",
    "RescueConformance",
    "RetryConformance",
    "check_invariants",
]


class EngineConformance(
    EnqueueConformance,
    IdentityConformance,
    DependenciesConformance,
    ClaimConformance,
    HeartbeatConformance,
    FinishConformance,
    RescueConformance,
    PruneConformance,
    CancelConformance,
    RetryConformance,
    DeleteConformance,
    QueuesConformance,
    ReadsConformance,
    ListingConformance,
    MetricsConformance,
    FeedConformance,
    HintsConformance,
    LifecycleConformance,
    HostileConformance,
    ConcurrencyConformance,
    RegressionsConformance,
):
    """The whole suite."""


_names = Counter(name for base in EngineConformance.__bases__ for name in vars(base) if name.startswith("test_"))
_hidden = sorted(name for name, times in _names.items() if times > 1)
if _hidden:
    raise TypeError(f"two operations have a case of the same name, so that one would never run: {_hidden}")
