"""Writes the table of the monitor's settings from their declarations: `make docs`."""

from __future__ import annotations

import re
import types
import typing
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le
from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from monitor.pools.settings import DatabaseSettings
from monitor.settings import KafkaSettings, MonitorSettings

_TYPES: Final = {bool: "`true` or `false`", Path: "a file", re.Pattern: "a regular expression"}

_HEAD: Final = """\
# Settings of the monitor

Environment variables, a YAML file (`--config FILE` or `MONITOR_CONFIG`), and options of the command line;
the same for every command. Made from the declarations by `make docs`. A misspelt name and a value that
can't work are refused with the reason, and the exit code 2; `monitor config check` tells all mistakes of
a file at once, each with its line. Secrets are never shown; each can be in a file instead:
`KAFKA_SASL_PASSWORD_FILE` names the file that holds `KAFKA_SASL_PASSWORD`.

## The file

The names of the variables below in small letters, those of Kafka under `kafka`; one cluster or many:

```yaml
poll_interval: 30                 # for every cluster that says nothing else
groups_deny: console-consumer-.*
kafka:
  security_protocol: SASL_SSL
  sasl_mechanism: SCRAM-SHA-512
  sasl_username: monitor
  sasl_password_file: secrets/kafka   # paths are from the folder of this file
database_url_file: secrets/database
clusters:
  - name: east                    # the label `cluster` of its series
    kafka:
      bootstrap_servers: [east-1:9093, east-2:9093]
  - name: west
    poll_interval: 60
    kafka:
      bootstrap_servers: west-1:9092
      security_protocol: PLAINTEXT
      sasl_mechanism:             # without a value: what is said above does not hold here
```

An option of the command line goes before an entry of `clusters`, that before the environment, and the
environment before the rest of the file: a variable that is left over in a shell points no cluster of the
list at another address. `--cluster west` makes a command work with that one only.
"""


def document() -> str:
    """Return docs/configuration.md."""
    return "\n".join(
        [
            _HEAD,
            "## The cluster\n",
            *_table(KafkaSettings),
            "\n## The monitor\n",
            *_table(MonitorSettings),
            "\n## Databases and pools\n",
            *_table(DatabaseSettings),
            "",
        ]
    )


def _table(model: type[BaseSettings]) -> list[str]:
    prefix = model.model_config["env_prefix"]
    rows = [
        f"| `{(prefix + name).upper()}` | {_default(field)} | {_allowed(field)} | {field.description} |"
        for name, field in model.model_fields.items()
    ]
    return ["| variable | default | allowed | |", "|---|---|---|---|", *rows]


def _default(field: FieldInfo) -> str:
    value = field.default
    if value is None or value == ():
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return f"`{','.join(value)}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _allowed(field: FieldInfo) -> str:
    kind, limits = _without_none(field.annotation), list(field.metadata)
    while get_origin(kind) is typing.Annotated:
        kind, *more = get_args(kind)
        limits += [limit for each in more for limit in getattr(each, "metadata", [each])]
    least = next((f"{x.ge:g}" for x in limits if isinstance(x, Ge)), None) or next(
        (f"more than {x.gt:g}" for x in limits if isinstance(x, Gt)), None
    )
    most = next((f"{x.le:g}" for x in limits if isinstance(x, Le)), None)
    if least is not None:
        return f"{least} to {most}" if most is not None else f"{least} or more"
    if get_origin(kind) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(kind))
    if get_origin(kind) is tuple and get_origin(get_args(kind)[0]) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(get_args(kind)[0]))
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return ", ".join(f"`{choice}`" for choice in kind)
    if kind is SecretStr:
        return "a secret"
    return _TYPES.get(get_origin(kind) or kind, "")


def _without_none(kind: Any) -> Any:
    if get_origin(kind) in (typing.Union, types.UnionType):
        return next(each for each in get_args(kind) if each is not type(None))
    return kind


if __name__ == "__main__":
    print(document(), end="")
