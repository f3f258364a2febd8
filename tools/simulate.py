"""Run simulated episodes (tools/crash/simulation.py) by number, and count. Page: specs/testing.md.

Usage: simulate.py [--from N] [--count N] [--jobs N] [--bug NAME] [--line JSON] [--json]
An episode that goes wrong is printed as a line for tests/faults/seeds.txt. Exit status 1 then.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.crash.bug import BUGS
from tools.crash.scenario import Scenario
from tools.crash.simulation import Result, simulate


def drawn(seed: int, bug: str = "") -> Result:
    """Run the episode of a number."""
    return simulate(Scenario.drawn(seed), bug=bug)


def main() -> int:
    """Run, print; 1 where something went wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first number")
    parser.add_argument("--count", type=int, default=200, help="how many episodes")
    parser.add_argument("--jobs", type=int, default=2, help="processes at once")
    parser.add_argument("--bug", default="", choices=["", *BUGS], help="plant a bug: find it")
    parser.add_argument("--line", help="run this one episode")
    parser.add_argument(
        "--until-wrong", action="store_true", help="stop at the first that is wrong"
    )
    parser.add_argument("--json", action="store_true", help="print one document")
    options = parser.parse_args()
    if options.line:
        results = [simulate(Scenario.of(options.line), bug=options.bug)]
    else:
        seeds = range(options.first, options.first + options.count)
        results = []
        with ProcessPoolExecutor(options.jobs, get_context("spawn")) as pool:
            for result in pool.map(partial(drawn, bug=options.bug), seeds, chunksize=4):
                results.append(result)
                if result.wrong and options.until_wrong:
                    pool.shutdown(cancel_futures=True)
                    break
    return _report(results, is_json=options.json)


def _report(results: list[Result], *, is_json: bool) -> int:
    struck: Counter[str] = sum((result.struck for result in results), Counter())
    acts: Counter[str] = sum((result.acts for result in results), Counter())
    wrong = [result for result in results if result.wrong]
    counts = {
        "episodes": len(results),
        "turns": sum(result.turns for result in results),
        "crash_points": sum(result.stops for result in results),
        "struck": dict(struck.most_common()),
        "acts": dict(acts.most_common()),
        "wrong": [{"line": str(one.scenario), "why": one.wrong} for one in wrong],
    }
    if is_json:
        print(json.dumps(counts, indent=1))
    else:
        print("\n".join(f"{name}: {value}" for name, value in counts.items() if name != "wrong"))
        for one in wrong[:10]:
            print(f"WRONG {one.scenario}\n  {one.wrong[:600]}")
        print(f"{len(wrong)} episodes went wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
