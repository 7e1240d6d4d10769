"""The settings file: what it may say, what goes before what, and every mistake with its line."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from monitor.commands import main
from monitor.configuration import Configuration, read_configuration
from monitor.settings import SettingsError
from scripts.configuration import document

TWO = """
poll_interval: 30
groups_deny: console-.*
kafka:
  security_protocol: SASL_SSL
  sasl_mechanism: SCRAM-SHA-512
  sasl_username: monitor
  sasl_password_file: secret
clusters:
  - name: east
    kafka:
      bootstrap_servers: [a:9092, b:9092]
  - name: west
    poll_interval: 5
    kafka:
      bootstrap_servers: c:9092
      security_protocol: PLAINTEXT
      sasl_mechanism:
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_text("hush\n")
    return tmp_path / "monitor.yml"


def read(file: Path, text: str, **flags: object) -> Configuration:
    file.write_text(text)
    return read_configuration(file, **flags)


def faults(file: Path, text: str, **flags: object) -> list[str]:
    with pytest.raises(SettingsError) as refused:
        read(file, text, **flags)
    return [line.removeprefix(f"{file}:") for line in str(refused.value).splitlines()]


def test_each_cluster_has_its_own_connection_and_interval_and_shares_the_rest(file: Path) -> None:
    text = TWO.replace("      sasl_mechanism:\n", "").replace(
        "      security_protocol: PLAINTEXT\n", ""
    )
    east, west = read(file, text).clusters
    assert east.kafka.bootstrap_servers == ("a:9092", "b:9092")
    assert west.kafka.bootstrap_servers == ("c:9092",)
    for each in (east, west):
        assert each.kafka.sasl_password is not None
        assert each.kafka.sasl_password.get_secret_value() == "hush"
    assert [east.settings.poll_interval, west.settings.poll_interval] == [30, 5]
    assert [east.settings.cluster, west.settings.cluster] == ["east", "west"]
    wants = west.settings.wants_group()
    assert wants is not None
    assert not wants("console-1")


def test_an_entry_can_take_back_what_is_shared(file: Path) -> None:
    west = read(file, TWO).clusters[1]
    assert (west.kafka.security_protocol, west.kafka.sasl_mechanism) == ("PLAINTEXT", None)


def test_flags_go_before_an_entry_an_entry_before_the_environment_that_before_the_rest(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MONITOR_POLL_INTERVAL", "20")
    monkeypatch.setenv("KAFKA_BROKERS", "left-over:9092")
    east, west = read(file, TWO).clusters
    assert [each.settings.poll_interval for each in (east, west)] == [20, 5]
    assert west.kafka.bootstrap_servers == ("c:9092",)
    one = read(file, TWO, cluster="west", poll_interval=7, bootstrap_servers="d:1").one()
    assert one.settings.poll_interval == 7
    assert one.kafka.bootstrap_servers == ("d:1",)


def test_a_file_without_clusters_is_about_one_that_need_not_be_named(file: Path) -> None:
    found = read(file, "kafka: {bootstrap_servers: a:1}\nport: 9400\n")
    assert not found.names_clusters
    assert found.one().kafka.bootstrap_servers == ("a:1",)
    assert found.one().settings.cluster is None
    assert found.process.port == 9400
    assert read(file, "").one().kafka.bootstrap_servers == ("127.0.0.1:9092",)


def test_one_address_for_all_clusters_is_refused(file: Path) -> None:
    assert "say --cluster" in faults(file, TWO, bootstrap_servers="d:1")[0]


def test_which_cluster_is_meant_must_be_clear(file: Path) -> None:
    with pytest.raises(SettingsError, match="say --cluster and one of east, west"):
        read(file, TWO).one()
    assert faults(file, TWO, cluster="north") == [
        "there is no cluster 'north'; there are east, west"
    ]


def test_a_path_is_from_the_folder_of_the_file(file: Path) -> None:
    (file.parent / "ca.pem").write_text("")
    found = read(file, "kafka: {ssl_cafile: ca.pem, security_protocol: SSL}\n")
    assert found.one().kafka.ssl_cafile == file.parent / "ca.pem"


FIVE = """\
poll_intervall: 30
port: 99999
groups_deny: "("
clusters:
  - name: east
    kafka: {bootstrap_servers: nowhere}
  - kafka:
      bootstrap_servers: a:1
      sasl_mechanism: PLAIN
    poll_interval: 5
    poll_interval: 6
    port: 80
"""


def test_all_mistakes_are_told_at_once_with_their_lines(file: Path) -> None:
    told = faults(file, FIVE)
    assert [line.split(": ", 1)[0] for line in told] == ["1", "2", "3", "6", "7", "8", "11", "12"]
    text = "\n".join(told)
    for said in (
        "poll_intervall is no setting here; is poll_interval meant?",
        "port: Input should be less than or equal to 65535",
        "groups_deny: ",
        "'nowhere' is not HOST:PORT",
        "a cluster needs a name",
        "KAFKA_SASL_MECHANISM=PLAIN needs KAFKA_SECURITY_PROTOCOL",
        "poll_interval is said twice, first in line 10",
        "port is not a cluster's: it belongs to the top of the file",
    ):
        assert said in text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("port: 1\na: [", "2: no YAML: "),
        ("- a\n- b", "1: this is no mapping"),
        ("clusters: 5", "1: clusters is a list"),
        ("clusters: []", "1: clusters is a list"),
        ("clusters: [a]", "1: this is no mapping"),
        ("kafka: 5", "1: this is no mapping"),
        ("port: {a: 1}", "1: port is one value"),
        ("port: !!python/object:os.system x", "1: port: this value can't be read"),
        ("kafka: {sasl_password_file: none}", "can't be read: No such file"),
        ("cluster: a\nclusters: [{name: b, kafka: {bootstrap_servers: a:1}}]", "1: cluster names"),
        ("stale_after: 5", "1: MONITOR_STALE_AFTER=5 must be longer"),
        ("? [a]\n: b", "1:  is no setting here"),
        (
            "kafka: {sasl_mechanism: PLAIN, sasl_password_file: }",
            "1: KAFKA_SASL_MECHANISM=PLAIN needs",
        ),
        ("port: 2020-01-01x\x00", "is no YAML"),
    ],
)
def test_a_mistake_is_told_with_what_is_allowed(file: Path, text: str, said: str) -> None:
    assert said in "\n".join(faults(file, text))


def test_a_secret_is_not_repeated(file: Path) -> None:
    told = faults(file, "kafka: {sasl_password: [hush]}\ndatabase_url: hush\n")
    assert len(told) == 2
    assert "hush" not in "\n".join(told)


def test_what_is_wrong_in_the_environment_is_told_beside_it(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MONITOR_PORT", "x")
    told = faults(file, "poll_interval: 0\n")
    assert told[0].startswith("MONITOR_PORT: ")
    assert told[1].startswith("1: poll_interval: ")


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.yml can't be read: No such file"):
        read_configuration(tmp_path / "none.yml")


def test_config_check_says_what_would_be_watched_or_what_is_wrong(file: Path) -> None:
    file.write_text(TWO)
    good = CliRunner().invoke(main, ["config", "check", "--config", str(file)])
    assert good.exit_code == 0
    assert good.stdout == (
        "east: a:9092, b:9092 (SASL_SSL), every 30 s\n"
        "west: c:9092 (PLAINTEXT), every 5 s\n"
        "2 clusters, served at http://127.0.0.1:9308/: no mistakes.\n"
    )
    file.write_text(FIVE)
    bad = CliRunner().invoke(main, ["config", "check", "--config", str(file)])
    assert bad.exit_code == 2
    assert len(bad.stderr.splitlines()) == 8
    assert "Traceback" not in bad.stderr


SECOND_IS_WRONG = """
clusters:
- {name: a, kafka: {bootstrap_servers: 'a:1'}}
- {name: b, kafka: {bootstrap_servers: 'b:1', security_protocol: SSL, ssl_cafile: bad.pem}}
"""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("history_url: mysql://a/b", "MONITOR_HISTORY_URL: say sqlite:///FILE, postgresql://"),
        ("history_url: 'sqlite:///'", "MONITOR_HISTORY_URL: say sqlite:///FILE"),
        ("history_url: 'sqlite:///:memory:'", "MONITOR_HISTORY_URL: say sqlite:///FILE"),
        ("history_url: 'postgresql://[bad'", "MONITOR_HISTORY_URL: say sqlite:///FILE"),
        ("history_url: postgresql://u:p@h:x/d", "MONITOR_HISTORY_URL: say sqlite:///FILE"),
        ("kafka: {security_protocol: SSL, ssl_cafile: bad.pem}", "bad.pem holds no certificate"),
        (SECOND_IS_WRONG, "Error: b: KAFKA_SSL_CAFILE="),
        ("tls_certfile: bad.pem\ntls_keyfile: bad.pem", "bad.pem can't be used: "),
        ("web_config_file: bad.pem", "bad.pem is no mapping"),
        (
            "scaling_min: 3\nscaling_max: 2",
            "MONITOR_SCALING_MAX=2 is less than MONITOR_SCALING_MIN=3",
        ),
        ("database_url: 'postgresql://[bad'", "database_url: say postgresql://"),
        ("port: yes", "port: Input should be a valid integer"),
        ("poll_interval: on", "poll_interval: Input should be a valid number"),
        ("kafka: {bootstrap_servers: 9092}", "bootstrap_servers: '9092' is not HOST:PORT"),
        ("groups_deny: (", "groups_deny: '(' is no regular expression: missing ), unterminated"),
        ('cluster: "a\\0b"', "cluster: a cluster's name has at most 255 characters"),
        (f"cluster: {'x' * 256}", "cluster: a cluster's name has at most 255 characters"),
    ],
)
def test_what_serve_refuses_at_its_start_config_check_refuses_too(
    file: Path, text: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MONITOR_HISTORY_URL", raising=False)
    (file.parent / "bad.pem").write_text("nothing")
    file.write_text(f"{text}\n")
    checked = CliRunner().invoke(main, ["config", "check", "--config", str(file)])
    assert said in checked.stderr
    assert checked.exit_code == 2
    # not before: one that refuses nothing would serve for ever
    serve = CliRunner().invoke(main, ["serve", "--wait", "--config", str(file)])
    assert (serve.exit_code, serve.output) == (2, checked.output)


def test_what_opentelemetry_is_told_is_checked_too(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text("")
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "otlp")
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "nan")
    for command in (["config", "check"], ["serve", "--wait"]):
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 2
        assert "OTEL_METRIC_EXPORT_INTERVAL: milliseconds" in result.stderr


def test_config_check_writes_nothing(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = file.parent / "state"
    folder.mkdir()
    monkeypatch.setenv("XDG_STATE_HOME", str(folder))
    for url in (None, f"sqlite:///{folder}/h.sqlite", "off"):
        if url is None:
            monkeypatch.delenv("MONITOR_HISTORY_URL", raising=False)
        else:
            monkeypatch.setenv("MONITOR_HISTORY_URL", url)
        assert CliRunner().invoke(main, ["config", "check"]).exit_code == 0
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("command", ["lag", "groups", "serve", "pools", "check"])
def test_every_command_takes_the_file_and_refuses_a_wrong_one(file: Path, command: str) -> None:
    file.write_text(FIVE)
    result = CliRunner().invoke(main, [command], env={"MONITOR_CONFIG": str(file)})
    assert result.exit_code == (3 if command == "check" else 2)
    assert "poll_intervall is no setting here" in result.stdout + result.stderr


def test_the_file_in_the_documents_is_a_good_one(file: Path) -> None:
    text = document().split("```yaml\n")[1].split("```")[0]
    (file.parent / "secrets").mkdir()
    (file.parent / "secrets" / "kafka").write_text("hush")
    (file.parent / "secrets" / "database").write_text("postgresql://u:p@h:5432/d")
    east, west = read(file, text).clusters
    assert east.kafka.bootstrap_servers == ("east-1:9093", "east-2:9093")
    assert (west.settings.poll_interval, west.kafka.sasl_mechanism) == (60, None)
