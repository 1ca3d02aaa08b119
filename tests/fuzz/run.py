"""Mutated traffic against the client, and what must hold whatever comes: `nox -s fuzz -- --minutes 60`.

    python -m tests.fuzz.run [--minutes 1] [--backend trio] [--target http] [--seed 1]
    python -m tests.fuzz.run --replay http:modern:17      # what a finding prints; or a file of corpus/

Several workers play cases side by side. Each case follows from its token. What seems wrong is played once
more by itself, made smaller, and printed with the token. The exit status is 0 only if nothing was wrong, and
no task, socket, process, thread or memory was left.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import logging
import os
import random
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import anyio

from anyio_mcp.testing import task_dump
from tests.fuzz.cases import TARGETS, Case, from_token, smaller
from tests.fuzz.play import Reports, long_steps, world
from tests.lag.meter import Meter
from tests.leaks import child_processes, open_sockets

WORKERS: Final = {"stdio": 8, "http": 10, "sse": 10, "schema": 4, "oauth": 8, "config": 1}
"""Side by side, for each target and era. The more, the more often its cases wait for what never comes."""
BATCH: Final = 100
"""Cases that one client plays before it is left, and what it leaves behind is looked at."""
OF_EVERYBODY: Final = ("a step held", "logged")
"""How findings begin that may be of any case that is being played."""
STUCK: Final = 150.0
"""Seconds after which a case hangs, and everything else is stopped to say where."""
GROWTH: Final = 64 * 1024 * 1024
"""Bytes by which the process may grow between the second fifth of a run and its end."""
CONFIRMING: Final = 300.0
"""Seconds for playing again, in all, what seemed wrong."""
SHRINKING: Final = 20.0
"""Seconds for which smaller cases are tried of one that failed."""


@dataclass(slots=True, eq=False)
class Ledger:
    """What has become of the cases."""

    played: Counter[str] = field(default_factory=Counter[str])
    suspects: dict[str, str] = field(default_factory=dict[str, str])
    """Tokens, with what was seen while they were played: they are played again, one by one."""
    wrong: list[str] = field(default_factory=list[str])


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def worker(
    target: str, era: str, seeds: Iterator[int], ends: float, ledger: Ledger, meter: Meter, reports: Reports
) -> None:
    """Plays cases until it is time. A world that breaks is itself a finding, of the last case in it."""
    token = ""
    while time.monotonic() < ends:
        try:
            async with world(target, era) as here:
                for seed in itertools.islice(seeds, BATCH):
                    token = f"{target}:{era}:{seed}"
                    with anyio.move_on_after(STUCK) as patience:
                        found = await here.play(from_token(token))
                    if patience.cancelled_caught:
                        found = [f"hangs\n{task_dump()}"]
                    # What the loop or a log shows may be of any case that is being played.
                    found += [*long_steps(meter), *reports.found]
                    meter.current.clear()
                    reports.found.clear()
                    ledger.played[target] += 1
                    if found:
                        ledger.suspects[token] = "; ".join(found)
                    if time.monotonic() > ends:
                        break
        except Exception as error:
            if token:
                ledger.suspects[token] = f"broke its world: {error!r}"
            else:
                ledger.wrong.append(f"no world for {target}, {era}: {error!r}")
                return


async def alone(case: Case, meter: Meter, reports: Reports) -> list[str]:
    """What is wrong when nothing else runs."""
    gc.collect()
    meter.current.clear()
    reports.found.clear()
    try:
        async with world(case.target, case.era) as here:
            with anyio.move_on_after(STUCK) as patience:
                found = await here.play(case)
            if patience.cancelled_caught:
                return ["hangs"]
    except Exception as error:
        return [f"broke its world: {error!r}"]
    return [*found, *long_steps(meter), *reports.found]


async def shrunk(case: Case, kind: str, meter: Meter, reports: Reports) -> Case:
    """A smaller case with a finding of the same kind."""
    ends = time.monotonic() + SHRINKING
    while True:
        for candidate in smaller(case):
            if time.monotonic() > ends:
                return case
            found = await alone(candidate, meter, reports)
            if any(each[:12] == kind[:12] for each in found):
                case = candidate
                break
        else:
            return case


async def confirm(ledger: Ledger, meter: Meter, reports: Reports, *, keep: Path | None) -> None:
    seen: Counter[str] = Counter()
    ends = time.monotonic() + CONFIRMING
    for token, suspicion in ledger.suspects.items():
        if time.monotonic() > ends:
            ledger.wrong.append(f"not played again: {token}  {suspicion[:500]}")
            continue
        case = from_token(token)
        found = await alone(case, meter, reports)
        if not found and suspicion.startswith(OF_EVERYBODY):
            print(f"only beside others: {token}  {suspicion[:500]}", flush=True)
            continue
        # What was wrong with the case itself may need what its client had met before.
        found = found or [f"in a sequence, not alone: {suspicion}"]
        kind = found[0]
        seen[kind[:60]] += 1
        # Of one kind the first is looked at closely, and three are named.
        if seen[kind[:60]] == 1 and case.target != "config" and not kind.startswith("in a sequence"):
            case = await shrunk(case, kind, meter, reports)
        if seen[kind[:60]] <= 3:
            what = f"{token} ({case.verb}): {kind[:1500]}\n    says {case.says!r:.1500}"
            print(what, flush=True)
            ledger.wrong.append(what.partition("\n")[0])
        if keep is not None and seen[kind[:60]] == 1:
            (keep / f"{token.replace(':', '-')}.json").write_text(case.dump() + "\n")


async def fuzz(options: argparse.Namespace, meter: Meter, reports: Reports) -> Ledger:
    ledger = Ledger()
    tasks = {task.id for task in anyio.get_running_tasks()}
    targets = options.target or TARGETS
    began = time.monotonic()
    ends = began + options.minutes * 60
    memory: list[int] = []

    async def watch_memory() -> None:
        while True:
            memory.append(resident())
            await anyio.sleep(max(options.minutes * 60 / 50, 0.2))

    async with anyio.create_task_group() as group:
        group.start_soon(watch_memory)
        async with anyio.create_task_group() as workers:
            for target in targets:
                seeds = itertools.count(options.seed)
                for era in ("legacy", "modern"):
                    if target == "sse" and era == "modern":
                        continue
                    for _ in range(WORKERS[target]):
                        workers.start_soon(worker, target, era, seeds, ends, ledger, meter, reports)
        group.cancel_scope.cancel()
    seconds = time.monotonic() - began
    left = [task.name for task in anyio.get_running_tasks() if task.id not in tasks]
    if left := [name for name in left if "TrioToken" not in (name or "")]:
        ledger.wrong.append(f"tasks are left: {left}")
    fifth = max(len(memory) // 5, 1)
    if memory[-1] - max(memory[: 2 * fifth]) > GROWTH:
        ledger.wrong.append(f"memory grew from {max(memory[: 2 * fifth]) >> 20} to {memory[-1] >> 20} MiB")
    played = ", ".join(f"{target} {number}" for target, number in ledger.played.items())
    total = ledger.played.total()
    print(
        f"{options.backend}, seed {options.seed}: {total} cases in {seconds:.0f} s, {total / seconds:.0f}/s"
    )
    print(f"    {played}; {memory[-1] >> 20} MiB; {len(ledger.suspects)} suspects", flush=True)
    await confirm(ledger, meter, reports, keep=options.keep)
    return ledger


async def replay(options: argparse.Namespace, meter: Meter, reports: Reports) -> Ledger:
    ledger = Ledger()
    for each in options.replay:
        case = Case.load(Path(each).read_text()) if Path(each).exists() else from_token(each)
        print(case.dump())
        found = await alone(case, meter, reports)
        ledger.wrong += [f"{case.token}: {what}" for what in found]
    return ledger


def run(options: argparse.Namespace) -> list[str]:
    """What was wrong, a line each."""
    # A server's warnings of its own mistakes are not looked at.
    logging.getLogger().addHandler(logging.NullHandler())
    logging.lastResort = None
    reports, meter = Reports(), Meter()
    logging.getLogger().addHandler(reports)
    sockets, children, threads = open_sockets(), child_processes(), threading.active_count()
    files = descriptors()
    act = replay if options.replay else fuzz
    try:
        with warnings.catch_warnings(record=True) as caught, meter.installed():
            warnings.simplefilter("always", ResourceWarning)
            ledger = anyio.run(act, options, meter, reports, backend=options.backend)
            gc.collect()
    finally:
        logging.getLogger().removeHandler(reports)
    wrong = ledger.wrong
    wrong += [f"warned: {each.message}" for each in caught if issubclass(each.category, ResourceWarning)][:3]
    wrong += [f"logged at the end: {each}" for each in reports.found[:3]]
    if left := open_sockets() - sockets:
        wrong.append(f"sockets are left: {len(left)}")
    if left := child_processes() - children:
        wrong.append(f"child processes are left: {left}")
    # Trio keeps a thread for ten seconds in case there is more to do.
    patience = time.monotonic() + 15
    while (left := threading.active_count() - threads) > 2 and time.monotonic() < patience:
        time.sleep(0.1)
    if left > 2:
        wrong.append(f"threads are left: {left}")
    if (left := descriptors() - files) > 5:
        wrong.append(f"descriptors are left: {left}")
    return wrong


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--minutes", type=float, default=1)
    options.add_argument("--backend", choices=("asyncio", "trio"), default="asyncio")
    options.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**9))
    options.add_argument("--target", choices=TARGETS, action="append")
    options.add_argument("--keep", type=Path, help="a directory for what was found")
    options.add_argument("--replay", nargs="+", default=[])
    return options


def main() -> None:
    wrong = run(parser().parse_args())
    for each in wrong:
        print(f"WRONG: {each}")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
