"""A machine with another clock: it answers each byte on a TCP connection with its time, ahead and fast by design."""

from __future__ import annotations

import socket
import time

AHEAD_NS, DRIFT_PPM = 100_000_000, 50


def far_ns(bench_ns: int) -> int:
    """What its clock shows at a time on the bench clock: whole ns, cut off."""
    return bench_ns + AHEAD_NS + bench_ns * DRIFT_PPM // 10**6


def main() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        print(server.getsockname()[1], flush=True)
        connection, _ = server.accept()
    with connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        asked = bytearray(1)
        while connection.recv_into(asked):
            connection.send(far_ns(time.monotonic_ns()).to_bytes(8))


if __name__ == "__main__":
    main()
