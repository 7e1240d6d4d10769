"""Run the `monitor` command with `python -m monitor`."""

from monitor.commands import run

if __name__ == "__main__":
    run()
