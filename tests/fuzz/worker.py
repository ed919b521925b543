"""A process that fuzzes: `worker.py FOLDER COUNT SEED [TARGET ...]`. It may crash; what it was doing is in FOLDER/now.

Prints a JSON object: how many cases of each target were refused and how many went through, and what went wrong, which
should be nothing: another exception than a UserError, a message of more than one line, more than ten seconds.
"""

from __future__ import annotations

import json
import random
import resource
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from targets import TARGETS, Playground

from seq2seq.errors import UserError

HANG = 10  # seconds of this process's own time
WAIT = 120  # seconds by the clock, for what waits without computing; a busy machine may pause the process for a while


class HangError(BaseException):
    pass


def main() -> None:
    folder, count, seed = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    names = sys.argv[4:]
    chosen = {target: share for target, share in TARGETS.items() if not names or target.__name__ in names}
    play = Playground(folder / "play")
    before = peak()
    signal.signal(signal.SIGALRM, _hang)
    signal.signal(signal.SIGPROF, _hang)
    report: dict[str, Any] = {"cases": {}, "wrong": [], "slowest": 0.0}
    for target, share in chosen.items():
        counts = report["cases"].setdefault(target.__name__, {"accepted": 0, "refused": 0})
        for number in range(max(1, count * share // sum(chosen.values()))):
            (folder / "now").write_text(f"{target.__name__} {seed} {number}")
            started = time.process_time()
            problem = attempt(play, target, f"{target.__name__} {seed} {number}", counts)
            report["slowest"] = max(report["slowest"], time.process_time() - started)
            if problem:
                report["wrong"].append([f"{target.__name__} {seed} {number}", problem])
                with (folder / "wrong").open("a", encoding="utf-8") as journal:  # a later case may end the process
                    journal.write(f"{target.__name__} {seed} {number}\n{problem}\n")
            play.put_back()
    report["megabytes"] = peak()
    report["megabytes_before"] = before
    print(json.dumps(report))


def attempt(play: Playground, target: Any, case: str, counts: dict[str, int]) -> str:
    """Runs a case; what went wrong, or nothing."""
    signal.alarm(WAIT)
    signal.setitimer(signal.ITIMER_PROF, HANG)
    try:
        target(play, random.Random(case))
    except UserError as error:
        counts["refused"] += 1
        return "" if "\n" not in str(error) and str(error) else f"not one line: {error!r}"
    except (Exception, HangError):
        return traceback.format_exc()[-1500:]
    finally:
        signal.alarm(0)
        signal.setitimer(signal.ITIMER_PROF, 0)
    counts["accepted"] += 1
    return ""


def _hang(number: int, frame: object) -> None:
    raise HangError


def peak() -> int:
    """Peak memory of this process in megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    main()
