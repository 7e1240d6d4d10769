"""Send demo orders to a gateway until SIGTERM: `demo_traffic.py HOST PORT ORDERS_PER_SECOND`."""  # noqa: INP001  # a script, not part of a package

import signal
import sys
import threading

from order_services.local.traffic import Traffic

REPORT_INTERVAL_SECONDS = 30.0


def main() -> int:
    """Run until stopped and say from time to time how many orders were accepted."""
    try:
        host, port, rate = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    except (IndexError, ValueError):
        rate = 0.0
    if not rate > 0:
        print("say demo_traffic.py HOST PORT ORDERS_PER_SECOND", file=sys.stderr)  # noqa: T201
        return 2
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    traffic = Traffic(host, port, rate)
    traffic.start()
    stopped = False
    while not stopped:
        stopped = stop.wait(REPORT_INTERVAL_SECONDS)
        print(f"accepted {traffic.accepted}, refused {traffic.refused}")  # noqa: T201
    traffic.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
