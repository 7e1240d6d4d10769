"""Send demo orders to a gateway until SIGTERM: `demo_traffic.py HOST PORT ORDERS_PER_SECOND`."""  # noqa: INP001  # a script, not part of a package

import sys

from order_services.local.traffic import Traffic
from order_services.process.signals import stop_signals

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
    with stop_signals() as stop:
        traffic = Traffic(host, port, rate)
        traffic.start()
        while not stop.wait(REPORT_INTERVAL_SECONDS):
            report(traffic)
        traffic.stop()
        report(traffic)
    return 0


def report(traffic: Traffic) -> None:
    """Print what became of the orders so far."""
    print(f"accepted {traffic.accepted}, refused {traffic.refused}")  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
