"""Reads the arguments, runs the benchmark, prints the table; exit 1 where a limit is missed."""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

import uvloop

from bench.bytecodes import counted
from bench.load import WrongReplyError
from bench.processes import SERVE, NotStartedError, last_words
from bench.report import table
from bench.results import Results
from bench.suite import PARTS, Plan, Suite
from bench.window import NothingCarriedError

_ONLY_HELP = f"parts to run, with commas between them: {','.join(PARTS)}"


def main() -> int:
    options = _parse()
    if (os.cpu_count() or 1) < 2:
        return _fail("this machine has one core; the proxy and its load need one each")
    if options.bytecodes:
        return _count_bytecodes()
    parts = tuple(options.only.split(",")) if options.only else PARTS
    if unknown := set(parts) - set(PARTS):
        return _fail(f"there is no part {', '.join(sorted(unknown))}; {_ONLY_HELP}")
    rounds, window_s = (1, 1.2) if options.quick else (3, 2.5)
    results, failure = _run(Plan(rounds, window_s, parts, options.serve, options.null))
    sys.stdout.write(table(results))
    if options.json:
        options.json.write_text(json.dumps(results.as_json(), indent=2, ensure_ascii=False) + "\n")
    if failure:
        return _fail(failure)
    if not results.missed():
        sys.stdout.write("\nAll limits kept.\n")
    return int(bool(results.missed()))


def _run(plan: Plan) -> tuple[Results, str | None]:
    """What was found out, and what ended the run before its time, with the last words of those measured."""
    with tempfile.TemporaryDirectory(prefix="gateway-bench-") as folder:
        suite = Suite(plan, Path(folder))
        try:
            uvloop.run(suite.run())
        except (NotStartedError, WrongReplyError, NothingCarriedError) as error:
            return suite.results, f"{error}\n{last_words(Path(folder))}"
        except TimeoutError:
            return suite.results, f"streams did not open, or did not end, within 30 s\n{last_words(Path(folder))}"
    return suite.results, None


def _count_bytecodes() -> int:
    with tempfile.TemporaryDirectory(prefix="gateway-bench-") as folder:
        try:
            sys.stdout.write(uvloop.run(counted(Path(folder))))
        except (NotStartedError, WrongReplyError, TimeoutError) as error:
            return _fail(f"{str(error) or 'the gateway did not say what it counted'}\n{last_words(Path(folder))}")
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description="CPU, latency and memory beside nginx.")
    parser.add_argument("--quick", action="store_true", help="one short round of everything, under a minute")
    parser.add_argument("--only", metavar="PARTS", help=_ONLY_HELP)
    parser.add_argument("--json", metavar="FILE", type=Path, help="write every round's figures there too")
    parser.add_argument("--serve", metavar="COMMAND", default=SERVE, help="what starts the gateway (%(default)s)")
    parser.add_argument("--null", action="store_true", help="a second nginx in the gateway's place: ratios should be 1")
    parser.add_argument("--bytecodes", action="store_true", help="only count the bytecodes of a call, by function")
    return parser.parse_args()


def _fail(reason: str) -> int:
    sys.stderr.write(f"scripts/bench: {reason}\n")
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
