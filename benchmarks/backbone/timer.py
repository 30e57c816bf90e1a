"""The least that a process which samples can do: sleep to absolute deadlines, and nothing else.

Takes the interval [ns] and for how long [s], and says when it begins. Prints the 99th percentile of its lateness [us]
and its share of a core.
"""

from __future__ import annotations

import json
import sys
import time
from array import array

import numpy as np


def main(interval_ns: int, for_s: float) -> None:
    lateness = array("q")
    print("begins", flush=True)
    cpu_s, start = time.thread_time(), time.monotonic_ns()
    deadline = start
    while deadline < start + for_s * 1e9:
        if (left := deadline - time.monotonic_ns()) > 0:
            time.sleep(left / 1e9)
        late = time.monotonic_ns() - deadline
        lateness.append(late)
        deadline += (late // interval_ns + 1) * interval_ns
    share = (time.thread_time() - cpu_s) / for_s
    print(json.dumps({"late_us": float(np.percentile(lateness, 99)) / 1e3, "share": share}))


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
