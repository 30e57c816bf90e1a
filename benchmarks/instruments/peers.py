"""Serves so many simulated SCPI meters over TCP, prints their resources as JSON, and ends with its standard input."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack

from tests.peers.scpi import WT310E, tcp


def main() -> None:
    with ExitStack() as stack:
        print(json.dumps([stack.enter_context(tcp(WT310E())) for _ in range(int(sys.argv[1]))]), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
