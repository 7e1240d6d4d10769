"""Two files by which the commands find what `make run` started: they hold its addresses and passwords."""

from __future__ import annotations

from pathlib import Path

import yaml

from order_services.local.plan import DatabaseAddress, Plan


class FoundBy:
    """The files of one run; they are there while it runs, for their owner only."""

    def __init__(self, data_dir: Path) -> None:
        self.monitor = data_dir / "monitor.yml"
        self._history = data_dir / "monitor-history.sqlite"
        self.services = data_dir / "services.env"

    def write(self, plan: Plan, brokers: str, database: DatabaseAddress) -> None:
        """Write the monitor's settings, and the environment of the `order-services` commands."""
        settings = plan.monitor_settings(brokers, database)
        # a run that is stopped and started again goes on with the same groups
        settings["history_url"] = f"sqlite:///{self._history.absolute()}"
        _write(self.monitor, yaml.safe_dump(settings))
        environment = plan.commands_environment(brokers, database)
        _write(self.services, "".join(f"{name}={value}\n" for name, value in environment.items()))

    def remove(self) -> None:
        """Remove them: what they name runs no more."""
        self.monitor.unlink(missing_ok=True)
        self.services.unlink(missing_ok=True)


def _write(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    path.touch(mode=0o600, exist_ok=False)
    path.write_text(text, encoding="utf-8")
