"""The two programs beside Strata's flags, asked line by line on standard input; they run in the peers' environment.

First comes one line of JSON, {"flags": [...], "users": [...]}; then «answers» or «round». Both products evaluate in process
from rules given at the start, and talk to no server.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

Document = dict[str, Any]
PassOver = Callable[[list[Document]], Iterator[bool]]
"""Every flag for every user, in their order."""


def serve(prepare: Callable[[list[Document]], PassOver]) -> None:
    logging.disable(logging.CRITICAL)
    given = json.loads(sys.stdin.readline())
    users: list[Document] = given["users"]
    pass_over = prepare(given["flags"])
    _say({"ready": True})
    for line in sys.stdin:
        if line.strip() == "answers":
            _say([bool(answer) for answer in pass_over(users)])
        else:
            started = time.process_time_ns()
            count = sum(1 for _ in pass_over(users))
            _say({"evaluations": count, "cpu_ns": time.process_time_ns() - started})


def _say(document: object) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()
