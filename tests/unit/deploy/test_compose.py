"""The compose files against the specification, the programs' settings and the guide."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import jsonschema
import pytest
from pydantic_settings import BaseSettings

from monitor.commands import main as monitor_cli
from monitor.configuration import read_configuration
from monitor.pools.services import ServiceTarget
from monitor.pools.settings import DatabaseSettings
from monitor.settings import KafkaSettings, MonitorSettings
from order_services.analytics.settings import AnalyticsSettings
from order_services.cli import cli as services_cli
from order_services.domain import topics
from order_services.domain.services import SERVICES
from order_services.gateway.settings import GatewaySettings
from order_services.inventory.settings import InventorySettings
from order_services.local.kafka import KAFKA_VERSION, EmbeddedKafka
from order_services.payment.settings import PaymentSettings
from order_services.process.settings import KILL_AFTER_SECONDS, ServiceSettings
from order_services.shipping.settings import ShippingSettings
from tests.unit.deploy import compose, dockerfile

DEMO_PASSWORD = "demo-only-change-me"
SETTINGS: dict[str, type[ServiceSettings]] = {
    "api-gateway": GatewaySettings,
    "payment-service": PaymentSettings,
    "inventory-service": InventorySettings,
    "shipping-service": ShippingSettings,
    "analytics-service": AnalyticsSettings,
}
BUILT = {*SETTINGS, "topics", "migrate", "demo-traffic", "monitor", "pgbouncer"}
EVERYTHING = {*BUILT, "kafka", "postgres", "prometheus", "alertmanager", "grafana"}
REPLICAS = {
    "api-gateway": 3,
    "payment-service": 3,
    "inventory-service": 2,
    "shipping-service": 2,
    "analytics-service": 1,
}
POSTGRES_MAX_CONNECTIONS = 100  # PostgreSQL's default, which the image keeps

both_files = pytest.mark.parametrize("name", compose.FILES)


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    text = Path(__file__).with_name("compose-spec.json").read_text()
    found = json.loads(text)
    assert isinstance(found, dict)
    return found


@both_files
def test_a_file_is_valid_by_the_compose_specification(name: str, schema: dict[str, Any]) -> None:
    validator = jsonschema.Draft202012Validator(schema)
    validator.validate(compose.raw(name))
    validator.validate({"services": compose.services(name)})


def test_the_specification_would_refuse_a_misspelt_key(schema: dict[str, Any]) -> None:
    content = copy.deepcopy(compose.raw("docker-compose.yml"))
    content["services"]["kafka"]["helthcheck"] = {}
    with pytest.raises(jsonschema.ValidationError, match="helthcheck"):
        jsonschema.Draft202012Validator(schema).validate(content)


def test_each_file_runs_the_whole_system() -> None:
    assert set(compose.services("docker-compose.yml")) == EVERYTHING
    assert set(compose.services("docker-compose.scale.yml")) == EVERYTHING | {"nginx", "redis"}


# -- the files beside them --------------------------------------------------------------------


@both_files
def test_everything_mounted_exists_and_cannot_be_changed_from_inside(name: str) -> None:
    declared = set(compose.raw(name)["volumes"])
    for service, definition in compose.services(name).items():
        for source, target, read_only in compose.mounts(definition):
            assert target.startswith("/"), (service, target)
            if source.startswith("./"):
                assert (compose.REPOSITORY / source).exists(), f"{service} mounts {source}"
                assert read_only, f"{service} could change {source}"
            else:
                assert source in declared, f"{service} uses the undeclared volume {source}"


@both_files
def test_the_monitors_history_is_on_a_volume(name: str) -> None:
    mounts = compose.mounts(compose.services(name)["monitor"])
    place = dockerfile.environment("monitor")["STATE_DIRECTORY"]
    assert ("monitor-data", place, False) in mounts


@both_files
def test_what_is_built_is_a_stage_of_the_dockerfile_and_the_rest_has_a_fixed_version(
    name: str,
) -> None:
    for service, definition in compose.services(name).items():
        build = definition.get("build", {})
        if service in BUILT:
            assert (compose.REPOSITORY / build["dockerfile"]) == dockerfile.PATH
            assert build["target"] in dockerfile.stages()
            assert definition["image"] == f"kafka-lag-monitor/{build['target']}"
        else:
            assert not build
            assert re.fullmatch(r"[a-z/]+:v?\d+[\d.]*(-alpine)?", definition["image"]), service


# -- settings, ports, commands ------------------------------------------------------------------


def variables_of(*models: type[BaseSettings]) -> set[str]:
    names = set()
    for model in models:
        prefix = model.model_config.get("env_prefix", "")
        for field, info in model.model_fields.items():
            names.add(f"{prefix}{field}".upper())
            choices = getattr(info.validation_alias, "choices", [])
            names |= {choice for choice in choices if choice.isupper()}
    return names


@both_files
@pytest.mark.parametrize("service", SETTINGS)
def test_a_service_gets_only_variables_that_it_reads_and_they_are_valid(
    name: str, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = {
        **dockerfile.environment("order-services"),
        **compose.environment(compose.services(name)[service]),
    }
    read = variables_of(SETTINGS[service])
    given = {key for key in variables if key not in dockerfile.SYSTEM_VARIABLES}
    assert given - read - {"MONITOR_HOST"} == set()
    for key in read:
        monkeypatch.delenv(key, raising=False)
    for key, value in variables.items():
        if key in read:
            monkeypatch.setenv(key, value)
    model = SETTINGS[service]
    settings = model()  # type: ignore[call-arg]  # the environment gives the arguments
    assert settings.host == "0.0.0.0"
    assert settings.port == model.model_fields["port"].default
    assert settings.kafka_client_id == model.model_fields["kafka_client_id"].default
    assert settings.instance_id == "", "replicas of one definition can't have an id of their own"
    assert (settings.db_host, settings.db_port) == ("pgbouncer", 6432)
    assert settings.db_via_pgbouncer


@both_files
def test_the_gateway_finds_the_other_services_at_their_ports(name: str) -> None:
    definitions = compose.services(name)
    gateway = compose.environment(definitions["api-gateway"])
    for service, model in SETTINGS.items():
        if service == "api-gateway":
            continue
        variable = f"{service.removesuffix('-service').upper()}_URL"
        assert gateway[variable] == f"http://{service}:{model.model_fields['port'].default}"


@both_files
def test_the_monitor_gets_only_variables_that_it_reads_and_they_are_valid(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = {
        **dockerfile.environment("monitor"),
        **compose.environment(compose.services(name)["monitor"]),
    }
    models = (KafkaSettings, MonitorSettings, DatabaseSettings)
    given = {key for key in variables if key not in dockerfile.SYSTEM_VARIABLES}
    assert given - variables_of(*models) - {"HOST"} == set()
    for key, value in variables.items():
        monkeypatch.setenv(key, value)
    kafka, monitor = read_configuration().one()
    assert kafka.bootstrap_servers == ("kafka:29092",)
    assert (monitor.host, monitor.port) == ("0.0.0.0", MonitorSettings.model_fields["port"].default)
    database = read_configuration().databases
    assert database.postgres_address is not None
    assert database.postgres_address.shown == "postgres:5432/ecommerce"
    assert database.pgbouncer_address is not None
    assert database.pgbouncer_address.shown == "pgbouncer:6432/pgbouncer"
    assert database.pool_max == ServiceSettings.model_fields["db_pool_max"].default
    asked = {target.name for target in map(ServiceTarget.parse, database.service_urls)}
    assert asked == set(SERVICES)
    assert DEMO_PASSWORD not in f"{kafka} {monitor} {database}"


@both_files
def test_ports_are_open_to_this_machine_only_and_those_of_the_design(name: str) -> None:
    scaled = name == "docker-compose.scale.yml"
    expected = {
        "kafka": {9092},
        "postgres": {5432},
        "pgbouncer": {6432},
        "monitor": {9308},
        "prometheus": {9090},
        "alertmanager": {9093},
        "grafana": {3000},
        **(
            {"nginx": {4000, 4004}}
            if scaled
            else {"api-gateway": {4000}, "analytics-service": {4004}}
        ),
    }
    found: dict[str, set[int]] = {}
    for service, definition in compose.services(name).items():
        for address, host, container in compose.published(definition):
            assert address == "127.0.0.1", service
            assert host == container, service
            found.setdefault(service, set()).add(host)
    assert found == expected


@both_files
def test_addresses_name_a_service_of_the_file_and_a_port_that_it_listens_on(name: str) -> None:
    definitions = compose.services(name)
    listening = {
        "kafka": {29092},
        "postgres": {5432},
        "pgbouncer": {6432},
        "redis": {6379},
        **{service: {model.model_fields["port"].default} for service, model in SETTINGS.items()},
    }
    pattern = re.compile(rf"\b({'|'.join(definitions)}):(\d+)\b")
    found = 0
    for service, definition in definitions.items():
        for value in compose.environment(definition).values():
            for host, port in pattern.findall(value):
                found += 1
                assert int(port) in listening[host], f"{service}: {value}"
    assert found > len(SETTINGS)


def resolve(command: click.Command, arguments: list[str]) -> click.Command:
    """Find the command that the words name and parse its options; raises UsageError."""
    context = command.make_context("test", list(arguments))
    while isinstance(command, click.Group):
        name, found, rest = command.resolve_command(
            context, [*context._protected_args, *context.args]
        )
        assert found is not None, name
        command = found
        context = command.make_context(str(name), rest, parent=context)
    return command


@both_files
def test_every_command_line_parses(name: str) -> None:
    for service, definition in compose.services(name).items():
        if service in ("pgbouncer", "demo-traffic") or service not in BUILT:
            continue
        entrypoint = dockerfile.stages()[definition["build"]["target"]].words("ENTRYPOINT")
        cli = {"monitor": monitor_cli, "order-services": services_cli}[entrypoint[-1]]
        resolve(cli, compose.words(definition["command"]))


def test_a_wrong_command_line_would_be_noticed() -> None:
    for wrong in (["run", "payments"], ["topics", "make"], ["topics", "create", "--fast"]):
        with pytest.raises(click.UsageError):
            resolve(services_cli, wrong)


@both_files
def test_each_service_runs_its_own_program(name: str) -> None:
    definitions = compose.services(name)
    for service in SETTINGS:
        short = service.removeprefix("api-").removesuffix("-service")
        assert definitions[service]["command"] == ["run", short]


@both_files
def test_demo_traffic_goes_to_the_gateway(name: str) -> None:
    definition = compose.services(name)["demo-traffic"]
    assert definition["entrypoint"] == ["python", "/opt/deploy/demo_traffic.py"]
    host, port, rate = definition["command"]
    assert host == ("api-gateway" if name == "docker-compose.yml" else "nginx")
    assert int(port) == GatewaySettings.model_fields["port"].default
    assert float(rate) > 0


# -- secrets and rights ---------------------------------------------------------------------------


@both_files
def test_every_password_comes_from_the_environment_with_a_default_that_says_demo(name: str) -> None:
    found = 0
    for service, definition in compose.raw(name)["services"].items():
        for variable, value in definition.get("environment", {}).items():
            if "password" in f"{variable}={value}".lower():
                found += 1
                pattern = rf"(.* password=)?\$\{{[A-Z_]+PASSWORD:-{DEMO_PASSWORD}\}}"
                assert re.fullmatch(pattern, value), f"{service}: {variable}"
    if name == "docker-compose.yml":
        assert found >= 13


def test_one_password_is_the_same_wherever_it_is_used() -> None:
    changed = {name: f"{name.lower()}-x" for name in ("ORDERS_DB_PASSWORD", "MONITOR_DB_PASSWORD")}
    content = compose.interpolate(compose.raw("docker-compose.yml")["services"], changed)
    assert content["payment-service"]["environment"]["DB_PASSWORD"] == "orders_db_password-x"
    assert content["pgbouncer"]["environment"]["DB_PASSWORD"] == "orders_db_password-x"
    assert content["postgres"]["environment"]["DB_PASSWORD"] == "orders_db_password-x"
    assert content["pgbouncer"]["environment"]["STATS_PASSWORD"] == "monitor_db_password-x"
    assert content["postgres"]["environment"]["MONITOR_DB_PASSWORD"] == "monitor_db_password-x"
    for variable in ("MONITOR_DATABASE_URL", "MONITOR_PGBOUNCER_URL"):
        assert "monitor_db_password-x" in content["monitor"]["environment"][variable]


@both_files
def test_what_we_build_runs_without_rights_that_it_does_not_need(name: str) -> None:
    for service, definition in compose.services(name).items():
        if service not in BUILT | {"nginx", "redis"}:
            continue
        assert definition["read_only"], service
        assert definition["cap_drop"] == ["ALL"], service
        assert definition["security_opt"] == ["no-new-privileges:true"], service
        assert "privileged" not in definition, service


# -- starting and stopping --------------------------------------------------------------------------


def _dependencies(definition: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for needed, details in definition.get("depends_on", {}).items():
        yield needed, details["condition"]


@both_files
def test_a_container_starts_when_what_it_needs_is_ready(name: str) -> None:
    definitions = compose.services(name)
    for service, definition in definitions.items():
        for needed, condition in _dependencies(definition):
            assert needed in definitions, service
            if condition == "service_completed_successfully":
                assert definitions[needed]["restart"] == "no"
                continue
            assert condition == "service_healthy", service
            own = definitions[needed].get("healthcheck", {})
            assert not own.get("disable"), f"{service} would wait for {needed} for ever"
            stage = definitions[needed].get("build", {}).get("target")
            assert own or dockerfile.stages()[stage].has("HEALTHCHECK"), needed
    for service in SETTINGS:
        assert dict(_dependencies(definitions[service])) == {
            "kafka": "service_healthy",
            "topics": "service_completed_successfully",
            "migrate": "service_completed_successfully",
            "pgbouncer": "service_healthy",
        }
    assert dict(_dependencies(definitions["pgbouncer"])) == {"postgres": "service_healthy"}
    assert dict(_dependencies(definitions["topics"])) == {"kafka": "service_healthy"}


@both_files
@pytest.mark.parametrize("service", SETTINGS)
def test_a_service_gets_the_time_that_its_orderly_end_may_take(name: str, service: str) -> None:
    # what the supervisor of `make run` grants, too
    assert (
        compose.seconds(compose.services(name)[service]["stop_grace_period"]) == KILL_AFTER_SECONDS
    )


# -- Kafka, PostgreSQL, PgBouncer ---------------------------------------------------------------


def test_the_broker_is_set_as_the_embedded_one(tmp_path: Path) -> None:
    kafka = compose.services("docker-compose.yml")["kafka"]
    assert kafka["image"] == f"apache/kafka:{KAFKA_VERSION}"
    ours = {
        # the image's own rule, reversed: KAFKA_A_B is a.b
        variable.removeprefix("KAFKA_").lower().replace("_", "."): value
        for variable, value in compose.environment(kafka).items()
        if variable.startswith("KAFKA_") and variable != "KAFKA_HEAP_OPTS"
    }
    written = EmbeddedKafka(tmp_path)._write_properties().read_text()
    embedded = dict(line.split("=", 1) for line in written.splitlines())
    # where it listens and keeps its data, and how a quorum of one is found, differ
    of_the_place = {
        *("listeners", "advertised.listeners", "listener.security.protocol.map", "log.dirs"),
        *("controller.quorum.bootstrap.servers", "controller.quorum.voters"),
    }
    assert {key: value for key, value in ours.items() if key not in of_the_place} == {
        key: value for key, value in embedded.items() if key not in of_the_place
    }


def test_kafka_is_reached_by_containers_and_by_programs_of_this_machine() -> None:
    variables = compose.environment(compose.services("docker-compose.yml")["kafka"])
    advertised = variables["KAFKA_ADVERTISED_LISTENERS"].split(",")
    assert advertised == ["PLAINTEXT://kafka:29092", "HOST://localhost:9092"]
    listening = {part.rpartition(":")[2] for part in variables["KAFKA_LISTENERS"].split(",")}
    assert {"29092", "9092"} <= listening


@both_files
def test_pgbouncer_is_set_as_the_guide_says_and_the_budget_holds(name: str) -> None:
    definitions = compose.services(name)
    pgbouncer = compose.environment(definitions["pgbouncer"])
    assert pgbouncer["POOL_MODE"] == "transaction"
    assert pgbouncer["MAX_CLIENT_CONN"] == "1000"
    assert pgbouncer["DEFAULT_POOL_SIZE"] == "20"
    pool_max = ServiceSettings.model_fields["db_pool_max"].default
    replicas = sum(
        definitions[service].get("deploy", {}).get("replicas", 1) for service in SETTINGS
    )
    assert replicas * pool_max <= int(pgbouncer["MAX_CLIENT_CONN"])
    assert definitions["pgbouncer"]["ulimits"]["nofile"] > int(pgbouncer["MAX_CLIENT_CONN"]) + 20
    # three are kept for superusers, a few are the monitor's
    assert int(pgbouncer["DEFAULT_POOL_SIZE"]) <= POSTGRES_MAX_CONNECTIONS - 3 - 5


# -- scaling ------------------------------------------------------------------------------------------


def test_the_guides_replicas_run() -> None:
    definitions = compose.services("docker-compose.scale.yml")
    assert {
        service: definition["deploy"]["replicas"]
        for service, definition in definitions.items()
        if "deploy" in definition
    } == REPLICAS


def test_no_service_has_more_replicas_than_its_topics_have_partitions() -> None:
    groups = {
        "api-gateway": topics.GATEWAY_GROUP,
        "payment-service": topics.PAYMENT_GROUP,
        "inventory-service": topics.INVENTORY_GROUP,
        "shipping-service": topics.SHIPPING_GROUP,
        "analytics-service": topics.ANALYTICS_GROUP,
    }
    for service, count in REPLICAS.items():
        partitions = max(topics.TOPIC_OF_NAME[topic].partitions for topic in groups[service].topics)
        assert count <= partitions, service


@pytest.mark.parametrize(
    ("name", "scalable"),
    [
        # the guide scales payment in either file
        ("docker-compose.yml", ["payment-service", "inventory-service", "shipping-service"]),
        (
            "docker-compose.scale.yml",
            list(SETTINGS),
        ),
    ],
)
def test_scale_works_nothing_that_replicas_would_share_is_fixed(
    name: str, scalable: list[str]
) -> None:
    for service in scalable:
        definition = compose.services(name)[service]
        assert not definition.get("ports"), service
        assert "container_name" not in definition, service
        assert "hostname" not in definition, service


def test_replicas_of_analytics_tell_each_other_what_they_read() -> None:
    definitions = compose.services("docker-compose.scale.yml")
    url = compose.environment(definitions["analytics-service"])["REDIS_URL"]
    assert url == "redis://redis:6379/0"
    # nothing that a page shows is kept in it
    assert definitions["redis"]["command"][:3] == ["redis-server", "--save", ""]
    assert "redis" not in dict(_dependencies(definitions["analytics-service"]))


@pytest.mark.parametrize("balancing", ["round-robin", "least-conn", "ip-hash"])
def test_a_variable_chooses_how_orders_are_balanced(balancing: str) -> None:
    raw = compose.raw("docker-compose.scale.yml")["services"]["nginx"]
    chosen = compose.interpolate(raw, {"NGINX_BALANCING": balancing})
    sources = {target: source for source, target, _ in compose.mounts(chosen)}
    file = compose.REPOSITORY / sources["/etc/nginx/upstream.conf"]
    directive = {"round-robin": None, "least-conn": "least_conn;", "ip-hash": "ip_hash;"}[balancing]
    lines = [line.strip() for line in file.read_text().splitlines()]
    assert [each for each in ("least_conn;", "ip_hash;") if each in lines] == (
        [directive] if directive else []
    )


def test_nginx_is_new_enough_to_notice_replicas_that_come_and_go() -> None:
    # https://nginx.org/en/docs/http/ngx_http_upstream_module.html#resolve
    image = compose.services("docker-compose.scale.yml")["nginx"]["image"]
    version = tuple(int(part) for part in re.findall(r"\d+", image.partition(":")[2]))
    assert version >= (1, 28)
