"""Run the `monitor` command with `python -m monitor`."""

from monitor.commands import main

if __name__ == "__main__":
    main()
