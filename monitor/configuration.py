"""All settings, read at once: a YAML file, the environment, flags; one cluster or many.

Every mistake is told, with its line.

An option of the command line goes before what an entry of `clusters` says, that before the
environment, and the environment before the rest of the file: a variable that is left over in a shell
must not point all clusters at one address.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar, get_args

import yaml
from pydantic import ValidationError
from pydantic_settings import BaseSettings

from monitor.pools.settings import DatabaseSettings
from monitor.secret_files import SUFFIX, is_secret, read_secret
from monitor.settings import KafkaSettings, MonitorSettings, SettingsError

T = TypeVar("T", bound=BaseSettings)

CLUSTERS: Final = "clusters"
KAFKA: Final = "kafka"
NAME: Final = "name"
# What there is once, however many clusters are watched.
OF_THE_PROCESS: Final = frozenset(
    {
        "host", "port", "tls_certfile", "tls_keyfile", "tls_client_cafile", "username", "password",
        "allow_cleartext_password", "log_level", "log_format", "families",
        "reload_by_http", "history_url", "otlp_level", "web_config_file",
    }
)  # fmt: skip


class Watched(NamedTuple):
    """One cluster: how to reach it, and how to watch it. `settings.cluster` is its name."""

    kafka: KafkaSettings
    settings: MonitorSettings


@dataclass(frozen=True, slots=True)
class Configuration:
    """All settings: of the process, of each cluster in the file's order, of the databases.

    `names_clusters` says whether a file has a list of them: each then has a name.
    """

    process: MonitorSettings
    clusters: tuple[Watched, ...]
    databases: DatabaseSettings
    names_clusters: bool = False

    def one(self) -> Watched:
        """Return the only cluster; raises SettingsError where there are several."""
        if len(self.clusters) == 1:
            return self.clusters[0]
        names = ", ".join(str(each.settings.cluster) for each in self.clusters)
        raise SettingsError(f"there are several clusters: say --cluster and one of {names}")


@dataclass(frozen=True, slots=True)
class _Value:
    """A value of the file and where it stands."""

    value: Any
    line: int


@dataclass(slots=True)
class _Section:
    """What a mapping of the file holds of one model; `line` is where it begins."""

    line: int
    values: dict[str, _Value] = field(default_factory=dict)

    def over(self, under: _Section) -> _Section:
        """Return both; what this one says goes first."""
        return _Section(self.line, {**under.values, **self.values})


@dataclass(slots=True)
class _Entry:
    """An entry of `clusters`."""

    name: str
    monitor: _Section
    kafka: _Section


class _Faults:
    """The mistakes that were found."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._found: list[tuple[int, str]] = []

    def add(self, line: int, message: str) -> None:
        """Note a mistake; line 0 is not in the file."""
        # what is wrong for all clusters together is not told again for each
        if not any(before in self._found for before in ((line, message), (0, message))):
            self._found.append((line, message))

    def raise_if_any(self) -> None:
        """Raise SettingsError with a line for each, in the file's order."""
        if self._found:
            raise SettingsError(
                "\n".join(
                    f"{self._path}:{line}: {message}" if line else message
                    for line, message in sorted(self._found)
                )
            )


def read_configuration(path: Path | None = None, /, **flags: Any) -> Configuration:
    """Read the file (none unless named), the environment and the flags (None is not given).

    Raises SettingsError with one line per mistake: where it is, and what is allowed. A secret is
    never repeated.
    """
    flags = {name: value for name, value in flags.items() if value is not None}
    faults = _Faults(path)
    file = _File(path, faults)
    entries = file.entries
    process = _build(MonitorSettings, _Section(0), file.monitor, flags, faults)
    pools = _build(DatabaseSettings, _Section(0), file.databases, flags, faults)
    watched = []
    # with a list of clusters the flag chooses one; it gives none a name
    of_each = flags if entries is None else {n: v for n, v in flags.items() if n != "cluster"}
    for entry in entries if entries is not None else [_Entry("", _Section(0), _Section(0))]:
        reached = _build(KafkaSettings, entry.kafka, file.kafka, of_each, faults)
        settings = _build(MonitorSettings, entry.monitor, file.monitor, of_each, faults)
        if reached is not None and settings is not None:
            watched.append(Watched(reached, settings))
    faults.raise_if_any()
    if entries is not None:
        watched = _chosen(watched, flags, process)
    assert process is not None  # noqa: S101  # else there were faults
    assert pools is not None  # noqa: S101
    return Configuration(process, tuple(watched), pools, names_clusters=entries is not None)


def _chosen(
    watched: list[Watched], flags: Mapping[str, Any], process: MonitorSettings | None
) -> list[Watched]:
    """Return the clusters of a file that are meant: one by its name, or all."""
    if process is not None and process.cluster is not None:
        chosen = [each for each in watched if each.settings.cluster == process.cluster]
        if not chosen:
            names = ", ".join(str(each.settings.cluster) for each in watched)
            raise SettingsError(f"there is no cluster {process.cluster!r}; there are {names}")
        return chosen
    if len(watched) > 1 and flags.keys() & KafkaSettings.model_fields.keys():
        raise SettingsError(
            "--bootstrap-servers and --command-config would reach all clusters of the file at one "
            "address: say --cluster as well"
        )
    return watched


class _File:
    """A settings file: its sections of the monitor, Kafka, databases, and clusters if it has any."""

    def __init__(self, path: Path | None, faults: _Faults) -> None:
        self._path, self._faults = path, faults
        self.monitor, self.kafka, self.databases = _Section(1), _Section(1), _Section(1)
        self.entries: list[_Entry] | None = None
        root = None if path is None else _parse(path)
        if root is not None:
            self._read(root)

    def _read(self, root: yaml.Node) -> None:
        for key, node, line in self._items(root):
            if key == CLUSTERS:
                self.entries = list(self._entries(node))
            elif key == KAFKA:
                self.kafka = self._section(node)
            elif key in names_of(MonitorSettings):
                self._take(self.monitor, MonitorSettings, key, node)
            elif key in names_of(DatabaseSettings):
                self._take(self.databases, DatabaseSettings, key, node)
            else:
                known = names_of(MonitorSettings) | names_of(DatabaseSettings) | {KAFKA, CLUSTERS}
                self._faults.add(line, _unknown(key, known))
        named = self.monitor.values.get("cluster")
        if self.entries is not None and named is not None:
            self._faults.add(
                named.line, "cluster names the only one; with clusters each has a name"
            )

    def _entries(self, node: yaml.Node) -> Iterator[_Entry]:
        if not isinstance(node, yaml.SequenceNode) or not node.value:
            self._faults.add(
                _line(node), f"{CLUSTERS} is a list with at least one entry: - {NAME}: ..."
            )
            return
        seen = {""}
        for each in node.value:
            entry = self._entry(each)
            if entry.name and entry.name in seen:
                self._faults.add(_line(each), f"there are two clusters of the name {entry.name!r}")
            seen.add(entry.name)
            yield entry

    def _entry(self, node: yaml.Node) -> _Entry:
        entry = _Entry("", _Section(_line(node)), _Section(_line(node)))
        allowed = names_of(MonitorSettings) - OF_THE_PROCESS - {"cluster"}
        for key, value, line in self._items(node):
            if key == NAME:
                entry.name = value.value.strip() if isinstance(value, yaml.ScalarNode) else ""
            elif key == KAFKA:
                entry.kafka = self._section(value)
            elif key in allowed:
                self._take(entry.monitor, MonitorSettings, key, value)
            elif key in names_of(MonitorSettings) | names_of(DatabaseSettings):
                self._faults.add(
                    line, f"{key} is not a cluster's: it belongs to the top of the file"
                )
            else:
                self._faults.add(line, _unknown(key, allowed | {NAME, KAFKA}))
        if not entry.name:
            self._faults.add(_line(node), f"a cluster needs a {NAME}: it is its label in metrics")
        if "bootstrap_servers" not in entry.kafka.values:
            self._faults.add(
                _line(node), f"a cluster needs its {KAFKA}: bootstrap_servers: HOST:PORT,..."
            )
        entry.monitor.values["cluster"] = _Value(entry.name, _line(node))
        return entry

    def _section(self, node: yaml.Node) -> _Section:
        section = _Section(_line(node))
        for key, value, line in self._items(node):
            if key in names_of(KafkaSettings):
                self._take(section, KafkaSettings, key, value)
            else:
                self._faults.add(line, _unknown(key, names_of(KafkaSettings)))
        return section

    def _items(self, node: yaml.Node) -> Iterator[tuple[str, yaml.Node, int]]:
        """Yield keys, values and lines of a mapping; what is none, or said twice, is a mistake."""
        if not isinstance(node, yaml.MappingNode):
            self._faults.add(_line(node), "this is no mapping of names to values")
            return
        seen: dict[str, int] = {}
        for key, value in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else ""
            if name in seen:
                self._faults.add(_line(key), f"{name} is said twice, first in line {seen[name]}")
                continue
            seen[name] = _line(key)
            yield name, value, _line(key)

    def _take(
        self, section: _Section, model: type[BaseSettings], key: str, node: yaml.Node
    ) -> None:
        """Put a value into its section; a path is from the file's folder, a secret's file is read."""
        assert self._path is not None  # noqa: S101  # else there are no nodes
        if isinstance(node, yaml.MappingNode):
            self._faults.add(_line(node), f"{key} is one value, no mapping")
            return
        loader = yaml.SafeLoader("")
        try:
            value = _value_of(node, loader)
            name = key if key in model.model_fields else key.removesuffix(SUFFIX.lower())
            if value is None:  # said without a value: as if nobody had said it, here or above
                value = model.model_fields[name].get_default()
            elif name != key:
                value = read_secret(key, self._path.parent / str(value))
            elif Path in get_args(model.model_fields[key].annotation):
                value = self._path.parent / str(value)
        except yaml.YAMLError:
            self._faults.add(_line(node), f"{key}: this value can't be read")
        except ValueError as error:
            self._faults.add(_line(node), str(error))
        else:
            section.values[name] = _Value(value, _line(node))
        finally:
            loader.dispose()


def _value_of(node: yaml.Node, loader: yaml.SafeLoader) -> Any:
    """Return a list, None, or the text as it is written, which settings take as from the environment.

    YAML reads `off` as a truth value, `yes` as one that is also the number 1, and 1:30 as 90.
    """
    value = loader.construct_object(node, deep=True)
    return node.value if isinstance(node, yaml.ScalarNode) and value is not None else value


def _parse(path: Path) -> yaml.Node | None:
    try:
        return yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except OSError as error:
        raise SettingsError(f"{path} can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{path} is not UTF-8") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise SettingsError(f"{path}:{line}: no YAML: {error.problem or error.context}") from None
    except yaml.YAMLError:
        raise SettingsError(
            f"{path} is no YAML: it holds characters that may not be there"
        ) from None


def names_of(model: type[BaseSettings]) -> set[str]:
    """Return what a file may say of a model: its fields, and the files of its secrets."""
    secrets = {name + SUFFIX.lower() for name, of in model.model_fields.items() if is_secret(of)}
    return {*model.model_fields, *secrets}


def _build(
    model: type[T], own: _Section, shared: _Section, flags: Mapping[str, Any], faults: _Faults
) -> T | None:
    """Return a model of flags, its own section, the environment and the shared section, in this order."""
    prefix = model.model_config["env_prefix"]
    under = _Section(
        shared.line,
        {n: v for n, v in shared.values.items() if not _is_in_environment(model, n)},
    )
    said = own.over(under)
    given = {name: each.value for name, each in said.values.items()}
    given |= {name: value for name, value in flags.items() if name in model.model_fields}
    try:
        return model(**given)
    except ValidationError as error:
        for fault in error.errors(include_url=False, include_input=False, include_context=False):
            name = str(fault["loc"][0]).lower().removeprefix(prefix.lower()) if fault["loc"] else ""
            message = fault["msg"].removeprefix("Value error, ")
            if name in said.values and name not in flags:
                faults.add(said.values[name].line, f"{name}: {message}")
            elif name:
                faults.add(0, f"{prefix}{name.upper()}: {message}")
            else:  # of several together; the message names them
                faults.add(own.line or (shared.line if said.values else 0), message)
    except ValueError as error:  # a file with a secret
        faults.add(0, str(error))
    return None


def _is_in_environment(model: type[BaseSettings], name: str) -> bool:
    alias = getattr(model.model_fields[name], "validation_alias", None)
    variables = {str(each) for each in getattr(alias, "choices", ())} - {name}
    variable = f"{model.model_config['env_prefix']}{name}".upper()
    return any(each in os.environ for each in (*variables, variable, variable + SUFFIX))


def _unknown(key: str, known: Collection[str]) -> str:
    return f"{key} is no setting here{meant(key, known)}"


def meant(name: str, known: Collection[str]) -> str:
    """Return what may be meant by a name that is no setting, or what there is."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"; is {close[0]} meant?" if close else f"; there are {', '.join(sorted(known))}"


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1
