"""Many requests at once, and how long each took: held, answered, refused, lost.

    report = load_test(url, requests, at_once=200)
    report.p50, report.p99, report.lost

Every request has its own clock, from the moment it is sent until its last byte is here; so waiting
for a place in a batch counts. A request is lost if no answer of any status came.

Left out on purpose: an open loop, in which requests come at their own times whatever the server
does. With `at_once` clients the server itself slows those that ask.
"""

import asyncio
import math
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from labkit.table import Table


@dataclass(frozen=True)
class Answer:
    """What came back for one request; status 0: nothing did."""

    status: int
    body: Mapping[str, Any]
    seconds: float


@dataclass(frozen=True)
class Load:
    """Every answer in the order of the requests, and the wall time of all."""

    answers: list[Answer]
    seconds: float
    at_once: int

    @property
    def statuses(self) -> dict[int, int]:
        """How often each status came."""
        return dict(sorted(Counter(a.status for a in self.answers).items()))

    @property
    def lost(self) -> int:
        """Requests without any answer."""
        return self.statuses.get(0, 0)

    @property
    def latencies(self) -> list[float]:
        """Seconds of each request that was answered with 200, sorted."""
        return sorted(a.seconds for a in self.answers if a.status == 200)

    @property
    def p50(self) -> float:
        return percentile(self.latencies, 0.50)

    @property
    def p99(self) -> float:
        return percentile(self.latencies, 0.99)

    @property
    def tokens_per_second(self) -> float:
        """Tokens written for all requests, by the wall clock."""
        return sum(a.body.get("tokens", 0) for a in self.answers) / self.seconds

    @property
    def table(self) -> Table:
        counts = ", ".join(f"{n} times {status}" for status, n in self.statuses.items())
        rows = [
            ("requests, at once", f"{len(self.answers)}, {self.at_once}"),
            ("answers", counts),
            ("lost", f"{self.lost}"),
            ("p50, p99", f"{1e3 * self.p50:,.0f} ms, {1e3 * self.p99:,.0f} ms"),
            ("tokens a second", f"{self.tokens_per_second:,.0f}"),
        ]
        return Table(("load", "measured"), rows)

    def __str__(self) -> str:
        return str(self.table)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.table._repr_html_()


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of the sorted values that at least `share` of them do not exceed.

    Raises:
        ValueError: if there are none.
    """
    if not values:
        raise ValueError("no request was answered: there is no percentile")
    return values[max(0, math.ceil(share * len(values)) - 1)]


async def _send(client: httpx.AsyncClient, request: Mapping[str, Any]) -> Answer:
    begin = time.perf_counter()
    try:
        said = await client.post("/generate", json=request)
        return Answer(said.status_code, said.json(), time.perf_counter() - begin)
    except (httpx.HTTPError, ValueError) as error:  # counted as lost, with its reason
        return Answer(0, {"error": f"{type(error).__name__}: {error}"}, time.perf_counter() - begin)


async def _all(
    url: str, requests: Sequence[Mapping[str, Any]], at_once: int, patience: float
) -> list[Answer]:
    limits = httpx.Limits(max_connections=at_once, max_keepalive_connections=at_once)
    timeout = httpx.Timeout(patience, pool=None)
    turns = asyncio.Semaphore(at_once)  # the clock of a request begins when its turn comes
    async with httpx.AsyncClient(
        base_url=url, limits=limits, timeout=timeout, trust_env=False
    ) as client:

        async def one(request: Mapping[str, Any]) -> Answer:
            async with turns:
                return await _send(client, request)

        return list(await asyncio.gather(*map(one, requests)))


def load_test(
    url: str, requests: Sequence[Mapping[str, Any]], at_once: int = 100, patience: float = 60.0
) -> Load:
    """Send every request, `at_once` of them held open at any time, and wait for all answers.

    Args:
        requests: bodies of POST /generate.
        patience: seconds after which an answer counts as lost.

    Raises:
        ValueError: if there are no requests.
    """
    if not requests:
        raise ValueError("no requests: a load of nothing has no times")
    found: list[Load] = []

    def run() -> None:
        begin = time.perf_counter()
        answers = asyncio.run(_all(url, requests, at_once, patience))
        found.append(Load(answers, time.perf_counter() - begin, at_once))

    thread = threading.Thread(target=run)  # a notebook's own loop is running already
    thread.start()
    thread.join()
    return found[0]
