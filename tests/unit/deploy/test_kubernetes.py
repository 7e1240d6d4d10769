"""The manifests against Kubernetes' schema, the programs' settings, the topics and the guide."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import kubernetes_validate
import pytest

from monitor.configuration import read_configuration
from monitor.pools.services import ServiceTarget
from monitor.pools.settings import DatabaseSettings
from monitor.settings import KafkaSettings, MonitorSettings
from order_services.cli import cli as services_cli
from order_services.domain import topics
from order_services.domain.services import PORTS, SERVICES
from order_services.process.settings import KILL_AFTER_SECONDS, ServiceSettings
from scripts import kubernetes as made
from tests.support import pods
from tests.unit.deploy import dockerfile, kustomize
from tests.unit.deploy.compose import REPOSITORY
from tests.unit.deploy.test_compose import SETTINGS, resolve, variables_of

all_overlays = pytest.mark.parametrize("overlay", kustomize.OVERLAYS)
KUBERNETES_VERSION = "1.35"
# kinds of others' operators: only a real API server with their definitions can judge them
CUSTOM = {"ServiceMonitor", "PrometheusRule", "ScaledObject"}
GROUPS = {group.group_id: group for group in topics.GROUPS}
JOBS = {"topics", "migrate", "migrate-finish"}
# as whoever installs it has to make them, see deploy/kubernetes/README.md
SECRETS: dict[str, dict[str, str]] = {
    "db-credentials": {"username": "orders", "password": "of the services"},
    "db-owner-credentials": {"username": "postgres", "password": "of the owner"},
    "monitor-credentials": {
        "username": "monitor",
        "password": "of-the-monitor",
        "database-url": "postgresql://monitor:of-the-monitor@postgres:5432/ecommerce",
        "pgbouncer-url": "postgresql://monitor:of-the-monitor@pgbouncer:6432/pgbouncer",
    },
}


def port_of(service: str) -> int:
    return PORTS[service.removeprefix("api-").removesuffix("-service")]


def the_container(overlay: str, name: str) -> dict[str, Any]:
    [container] = kustomize.pod_specs(overlay)[name]["containers"]
    assert isinstance(container, dict)
    return container


def environment(overlay: str, name: str) -> dict[str, str]:
    """Return the variables of the one container of a pod, the image's included."""

    def lookup(kind: str, wanted: str) -> Mapping[str, str] | None:
        if kind == "Secret":
            return SECRETS.get(wanted)
        data = kustomize.find(overlay, kind, wanted)["data"]
        assert isinstance(data, dict)
        return data

    container = the_container(overlay, name)
    image = container["image"].split(":")[0].removeprefix("kafka-lag-monitor/")
    fields = {"metadata.name": f"{name}-5d4f8c7b9-xk2lp"}
    return {**dockerfile.environment(image), **pods.environment(container, lookup, fields)}


# -- the API server would take it -----------------------------------------------------------------


def test_every_resource_is_valid_by_kubernetes_own_schema() -> None:
    # as text: aliases of YAML are copies to the API server, and overlays share most of what they have
    plain = {
        json.dumps(resource)
        for overlay in kustomize.OVERLAYS
        for resource in kustomize.build(overlay)
        if resource["kind"] not in CUSTOM
    }
    for text in sorted(plain):
        kubernetes_validate.validate(json.loads(text), KUBERNETES_VERSION, strict=True)


def test_the_schema_would_refuse_a_misspelt_field() -> None:
    wrong = json.loads(json.dumps(kustomize.find("production", "Deployment", "payment-service")))
    wrong["spec"]["template"]["spec"]["terminationGracePeriod"] = 20
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, KUBERNETES_VERSION, strict=True)


@all_overlays
def test_no_two_resources_have_the_same_name_and_all_are_in_one_namespace(overlay: str) -> None:
    keys = [(r["kind"], r["metadata"]["name"]) for r in kustomize.build(overlay)]
    assert len(set(keys)) == len(keys)
    assert {
        r["metadata"]["namespace"] for r in kustomize.build(overlay) if r["kind"] != "Namespace"
    } == {kustomize.find(overlay, "Namespace", "order-system")["metadata"]["name"]}


@all_overlays
def test_every_selector_finds_the_pods_that_it_is_for(overlay: str) -> None:
    labels = [
        resource["spec"]["template"]["metadata"]["labels"]
        for resource in kustomize.build(overlay)
        if "template" in resource.get("spec", {})
    ]
    selectors = [
        *(r["spec"]["selector"] for r in kustomize.of_kind(overlay, "Service")),
        *(
            r["spec"]["selector"]["matchLabels"]
            for kind in ("Deployment", "StatefulSet", "PodDisruptionBudget")
            for r in kustomize.of_kind(overlay, kind)
        ),
    ]
    for selector in selectors:
        assert [each for each in labels if selector.items() <= each.items()], selector


# -- settings, ports, commands --------------------------------------------------------------------


@all_overlays
@pytest.mark.parametrize("service", SETTINGS)
def test_a_service_gets_only_variables_that_it_reads_and_they_are_valid(
    overlay: str, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = environment(overlay, service)
    read = variables_of(SETTINGS[service])
    given = variables.keys() - dockerfile.SYSTEM_VARIABLES
    assert given - read - {"MONITOR_HOST", "POD_NAME"} == set()
    for key in read:
        monkeypatch.delenv(key, raising=False)
    for key in read & variables.keys():
        monkeypatch.setenv(key, variables[key])
    settings = SETTINGS[service]()  # type: ignore[call-arg]  # the environment gives the arguments
    assert settings.host == "0.0.0.0"
    assert settings.port == port_of(service)
    assert settings.kafka_client_id == variables["POD_NAME"], "replicas can't be told apart"
    assert settings.instance_id == "", "replicas of a Deployment have no stable id"
    assert settings.db_via_pgbouncer
    assert (settings.db_host, settings.db_port) == ("pgbouncer", 6432)
    assert settings.db_user == SECRETS["db-credentials"]["username"]


@all_overlays
def test_the_monitor_gets_only_variables_that_it_reads_and_they_are_valid(
    overlay: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = environment(overlay, "monitor")
    models = (KafkaSettings, MonitorSettings, DatabaseSettings)
    assert (
        variables.keys() - dockerfile.SYSTEM_VARIABLES - variables_of(*models) - {"HOST"} == set()
    )
    for key, value in variables.items():
        monkeypatch.setenv(key, value)
    kafka, monitor = read_configuration().one()
    assert ",".join(kafka.bootstrap_servers) == environment(overlay, "topics")["KAFKA_BROKERS"]
    assert (monitor.host, monitor.port) == ("0.0.0.0", MonitorSettings.model_fields["port"].default)
    database = read_configuration().databases
    assert database.pool_max == ServiceSettings.model_fields["db_pool_max"].default
    asked = {t.name: t.port for t in map(ServiceTarget.parse, database.service_urls)}
    # as the Deployments are called: pods of another name would be counted beside the one that is asked
    assert asked == {service: port_of(service) for service in SETTINGS}


@all_overlays
def test_services_are_reached_at_the_ports_of_the_design(overlay: str) -> None:
    wanted = {
        **{service: port_of(service) for service in SETTINGS},
        "monitor": MonitorSettings.model_fields["port"].default,
        "pgbouncer": 6432,
    }
    for name, number in wanted.items():
        [port] = kustomize.find(overlay, "Service", name)["spec"]["ports"]
        [own] = the_container(overlay, name)["ports"]
        assert (port["port"], port["targetPort"]) == (number, own["name"])
        assert own["containerPort"] == number
    gateway = environment(overlay, "api-gateway")
    for service in SETTINGS.keys() - {"api-gateway"}:
        variable = f"{service.removesuffix('-service').upper()}_URL"
        assert gateway[variable] == f"http://{service}:{port_of(service)}"


@all_overlays
def test_every_command_line_parses(overlay: str) -> None:
    for service in SETTINGS:
        assert the_container(overlay, service)["args"] == [
            "run",
            service.removeprefix("api-").removesuffix("-service"),
        ]
    for name in (*SETTINGS, *JOBS):
        words = pods.arguments(the_container(overlay, name), environment(overlay, name))
        assert not [word for word in words if "$(" in word], words
        resolve(services_cli, words)


@all_overlays
def test_migrations_reach_postgresql_itself_as_the_role_that_owns_the_tables(overlay: str) -> None:
    database = kustomize.find(overlay, "ConfigMap", "database")["data"]
    for name in ("migrate", "migrate-finish"):
        variables = environment(overlay, name)
        assert variables["DB_HOST"] == database["DB_HOST"] != "pgbouncer"
        assert variables["DB_USER"] == SECRETS["db-owner-credentials"]["username"]
        assert variables["ROLE"] == SECRETS["db-credentials"]["username"]
        assert "DB_VIA_PGBOUNCER" not in variables


@all_overlays
def test_every_image_is_one_that_we_build_or_has_a_fixed_version(overlay: str) -> None:
    for name, spec in kustomize.pod_specs(overlay).items():
        for container in spec["containers"]:
            image, _, tag = container["image"].partition(":")
            assert tag not in ("", "latest"), f"{name}: {image} would be another one tomorrow"
            if image.startswith("kafka-lag-monitor/"):
                assert image.removeprefix("kafka-lag-monitor/") in dockerfile.stages()


# -- probes, stop, rights -------------------------------------------------------------------------


@all_overlays
def test_restarting_and_routing_are_two_questions(overlay: str) -> None:
    for name in (*SETTINGS, "monitor"):
        container = the_container(overlay, name)
        assert container["livenessProbe"]["httpGet"]["path"] == "/health"
        assert container["startupProbe"]["httpGet"]["path"] == "/health"
        assert container["readinessProbe"]["httpGet"]["path"] == "/ready"


@all_overlays
def test_a_pod_gets_the_time_that_its_orderly_end_may_take(overlay: str) -> None:
    for name in SETTINGS:
        sleep = (
            the_container(overlay, name).get("lifecycle", {}).get("preStop", {}).get("sleep", {})
        )
        grace = kustomize.pod_specs(overlay)[name]["terminationGracePeriodSeconds"]
        assert grace >= sleep.get("seconds", 0) + KILL_AFTER_SECONDS, name
    for name in ("api-gateway", "analytics-service"):
        assert the_container(overlay, name)["lifecycle"]["preStop"]["sleep"]["seconds"] > 0


@all_overlays
def test_pods_run_without_rights_that_they_do_not_need(overlay: str) -> None:
    labels = kustomize.find(overlay, "Namespace", "order-system")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    for name, spec in kustomize.pod_specs(overlay).items():
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["enableServiceLinks"] is False, f"{name} would get variables of that kind"
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        for container in spec["containers"]:
            rights = container["securityContext"]
            assert rights["allowPrivilegeEscalation"] is False, name
            assert rights["capabilities"] == {"drop": ["ALL"]}, name
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}, name
            assert "memory" in container["resources"]["limits"], name
            ours = container["image"].startswith("kafka-lag-monitor/")
            assert rights.get("readOnlyRootFilesystem", False) is ours, name


def test_no_secret_is_written_down_but_those_of_development() -> None:
    for overlay in ("production", "keda"):
        assert kustomize.of_kind(overlay, "Secret") == []
    for overlay in kustomize.OVERLAYS:
        for spec in kustomize.pod_specs(overlay).values():
            for container in spec["containers"]:
                for entry in container.get("env", []):
                    if entry["name"].endswith(("PASSWORD", "TOKEN")):
                        assert "secretKeyRef" in entry["valueFrom"], entry
    for secret in kustomize.of_kind("development", "Secret"):
        assert SECRETS[secret["metadata"]["name"]].keys() >= secret["stringData"].keys()
        if "password" in secret["stringData"]:
            assert secret["stringData"]["password"] == "demo-only-change-me"


@all_overlays
def test_a_drained_node_takes_one_replica_of_a_service_and_replicas_are_spread(
    overlay: str,
) -> None:
    for name in SETTINGS:
        budget = kustomize.find(overlay, "PodDisruptionBudget", name)["spec"]
        assert budget["maxUnavailable"] == 1
        spread = kustomize.pod_specs(overlay)[name]["topologySpreadConstraints"]
        assert [each["topologyKey"] for each in spread] == [
            "kubernetes.io/hostname",
            "topology.kubernetes.io/zone",
        ]
        labels = kustomize.find(overlay, "Deployment", name)["spec"]["template"]["metadata"][
            "labels"
        ]
        for each in spread:
            assert each["labelSelector"]["matchLabels"].items() <= labels.items()
            assert "app" in each["matchLabelKeys"], "other services' replicas would count, too"


# -- who may talk to whom -------------------------------------------------------------------------


def _matches(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        labels.get(each["key"]) in each["values"] for each in selector.get("matchExpressions", [])
    )


def _open(
    overlay: str,
    direction: str,
    pair: tuple[Mapping[str, str], Mapping[str, str]],
    port: int,
    name: str,
) -> bool:
    """Say whether a pod with the first labels may send to, or hear from, the second at that port."""
    own, other = pair
    peers, kind = ("to", "Egress") if direction == "egress" else ("from", "Ingress")
    for policy in kustomize.of_kind(overlay, "NetworkPolicy"):
        spec = policy["spec"]
        if kind not in spec["policyTypes"] or not _matches(spec["podSelector"], own):
            continue
        for rule in spec.get(direction, []):
            allowed = peers not in rule or any(
                _matches(peer["podSelector"], other)
                for peer in rule[peers]
                if "podSelector" in peer
            )
            at = any(
                each["port"] == name
                or (
                    isinstance(each["port"], int)
                    and each["port"] <= port <= each.get("endPort", each["port"])
                )
                for each in rule["ports"]
            )
            if allowed and at:
                return True
    return False


def _labels(overlay: str, name: str) -> dict[str, str]:
    for resource in kustomize.build(overlay):
        if resource["metadata"]["name"] == name and "template" in resource.get("spec", {}):
            found = resource["spec"]["template"]["metadata"]["labels"]
            assert isinstance(found, dict)
            return found
    raise AssertionError(name)


def _conversations(overlay: str) -> Iterator[tuple[str, str, int, str]]:
    """Yield who calls, who is called, and the port with its name."""
    for service in SETTINGS:
        yield service, "pgbouncer", 6432, "postgres"
        yield "monitor", service, port_of(service), "http"
        if service != "api-gateway":
            yield "api-gateway", service, port_of(service), "http"
    yield "monitor", "pgbouncer", 6432, "postgres"
    if overlay == "development":
        for name in (*SETTINGS, "topics", "monitor"):
            yield name, "kafka", 9092, "kafka"
        for name in ("pgbouncer", "migrate", "monitor"):
            yield name, "postgres", 5432, "postgres"


@all_overlays
def test_policies_let_through_what_has_to_pass_and_nothing_else(overlay: str) -> None:
    wanted = set(_conversations(overlay))
    for caller, called, port, name in wanted:
        ours, theirs = _labels(overlay, caller), _labels(overlay, called)
        assert _open(overlay, "egress", (ours, theirs), port, name), f"{caller} -> {called}"
        assert _open(overlay, "ingress", (theirs, ours), port, name), f"{called} <- {caller}"
    for caller, called in (("payment-service", "shipping-service"), ("topics", "pgbouncer")):
        ours, theirs = _labels(overlay, caller), _labels(overlay, called)
        port = 6432 if called == "pgbouncer" else port_of(called)
        assert not _open(overlay, "ingress", (theirs, ours), port, "http"), f"{called} <- {caller}"


# -- the guide, scaling, budgets ------------------------------------------------------------------


def test_the_guides_deployment_is_there() -> None:
    payment = kustomize.find("production", "Deployment", "payment-service")
    assert payment["metadata"]["labels"]["app"] == "payment-service"
    assert the_container("production", "payment-service")["resources"] == {
        "requests": {"memory": "256Mi", "cpu": "250m"},
        "limits": {"memory": "512Mi", "cpu": "500m"},
    }
    [rule] = kustomize.find("production", "Ingress", "api-gateway-ingress")["spec"]["rules"]
    assert rule["host"] == "api.ecommerce.local"
    [path] = rule["http"]["paths"]
    assert (path["path"], path["backend"]["service"]["name"]) == ("/", "api-gateway")


@pytest.mark.parametrize("name", ["payment-service", "api-gateway"])
def test_the_guides_autoscaler_is_there(name: str) -> None:
    scaler = kustomize.find("production", "HorizontalPodAutoscaler", f"{name}-hpa")["spec"]
    assert scaler["scaleTargetRef"]["name"] == name
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (2, 10)
    targets = {m["resource"]["name"]: m["resource"]["target"] for m in scaler["metrics"]}
    assert targets == {
        "cpu": {"type": "Utilization", "averageUtilization": 70},
        "memory": {"type": "Utilization", "averageUtilization": 80},
    }


@all_overlays
def test_only_one_says_how_many_replicas_there_are(overlay: str) -> None:
    scaled = [
        r["spec"]["scaleTargetRef"]["name"]
        for kind in ("HorizontalPodAutoscaler", "ScaledObject")
        for r in kustomize.of_kind(overlay, kind)
    ]
    assert len(set(scaled)) == len(scaled)
    for name in scaled:
        assert "replicas" not in kustomize.find(overlay, "Deployment", name)["spec"], name


@all_overlays
def test_the_monitor_keeps_its_history_where_it_may_write(overlay: str) -> None:
    pod = kustomize.find(overlay, "Deployment", "monitor")["spec"]["template"]["spec"]
    [container] = pod["containers"]
    mounted = {each["mountPath"]: each["name"] for each in container["volumeMounts"]}
    name = mounted[dockerfile.environment("monitor")["STATE_DIRECTORY"]]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert {"name": name, "emptyDir": {}} in pod["volumes"]


def test_keda_follows_the_monitors_answer_up_to_the_partitions() -> None:
    scaled = kustomize.of_kind("keda", "ScaledObject")
    assert {each["metadata"]["name"] for each in scaled} == {
        "payment-service",
        "inventory-service",
        "shipping-service",
    }
    monitor = kustomize.find("keda", "Service", "monitor")
    address = f"http://monitor.{monitor['metadata']['namespace']}.svc:9308"
    for each in scaled:
        spec = each["spec"]
        [trigger] = spec["triggers"]
        assert (trigger["type"], trigger["metricType"]) == ("metrics-api", "AverageValue")
        base, _, group = trigger["metadata"]["url"].partition("/api/v1/scaling/")
        assert base == address
        assert spec["scaleTargetRef"]["name"] == each["metadata"]["name"]
        assert group == f"{each['metadata']['name']}-group"
        assert (trigger["metadata"]["valueLocation"], trigger["metadata"]["targetValue"]) == (
            "replicas",
            "1",
        )
        partitions = max(topics.TOPIC_OF_NAME[t].partitions for t in GROUPS[group].topics)
        assert spec["minReplicaCount"] == 2
        assert spec["maxReplicaCount"] == partitions
        behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
        for direction in ("scaleUp", "scaleDown"):
            # HPA would ignore +1 and -1 from ten replicas on, and its windows would wait a second time
            assert behavior[direction]["tolerance"] == 0
            assert behavior[direction]["stabilizationWindowSeconds"] == 0


def most_replicas(overlay: str) -> dict[str, int]:
    """Return how many replicas each service has at most, with the one more of a rolling update."""
    most = {}
    for name in SETTINGS:
        deployment = kustomize.find(overlay, "Deployment", name)["spec"]
        counts = [deployment.get("replicas", 1)]
        for kind, field in (
            ("HorizontalPodAutoscaler", "maxReplicas"),
            ("ScaledObject", "maxReplicaCount"),
        ):
            counts += [
                r["spec"][field]
                for r in kustomize.of_kind(overlay, kind)
                if r["spec"]["scaleTargetRef"]["name"] == name
            ]
        most[name] = max(counts) + deployment["strategy"]["rollingUpdate"]["maxSurge"]
    return most


@all_overlays
def test_the_pool_budget_holds_with_every_service_at_its_most(overlay: str) -> None:
    pooler = environment(overlay, "pgbouncer")
    replicas = kustomize.find(overlay, "Deployment", "pgbouncer")["spec"].get("replicas", 1)
    pool_max = ServiceSettings.model_fields["db_pool_max"].default
    assert sum(most_replicas(overlay).values()) * pool_max <= int(pooler["MAX_CLIENT_CONN"])
    # PostgreSQL's default max_connections, less the 3 that it keeps for superusers
    with_one_more = (replicas + 1) * int(pooler["DEFAULT_POOL_SIZE"])
    others = 10  # the monitor, a migration, a person with psql
    assert with_one_more + others <= 100 - 3


# -- what is made from elsewhere ------------------------------------------------------------------


def test_rules_dashboards_and_roles_are_those_of_the_repository() -> None:
    for path, text in made.files().items():
        assert (REPOSITORY / path).read_text() == text, f"{path}: run `make kubernetes`"
    charted = REPOSITORY / made.CHART / "files"
    assert {path.relative_to(REPOSITORY) for path in charted.rglob("*") if path.is_file()} == {
        path for path in made.files() if path.is_relative_to(made.CHART)
    }


def test_prometheus_gets_the_jobs_and_labels_that_rules_and_dashboards_know() -> None:
    found = {}
    for monitor in kustomize.of_kind("production", "ServiceMonitor"):
        [endpoint] = monitor["spec"]["endpoints"]
        jobs = [r["replacement"] for r in endpoint["relabelings"] if r.get("targetLabel") == "job"]
        selector = monitor["spec"]["selector"]["matchLabels"]
        for service in kustomize.of_kind("production", "Service"):
            if selector.items() <= service["metadata"].get("labels", {}).items():
                assert service["spec"]["ports"][0]["name"] == endpoint["port"]
                found[service["metadata"]["name"]] = jobs
    assert found == {
        "monitor": ["kafka-monitor"],
        **{name: ["order-services"] for name in SETTINGS},
    }
    components = {
        kustomize.find("production", "Service", name)["metadata"]["labels"][
            "app.kubernetes.io/component"
        ]
        for name in SETTINGS
    }
    assert components == set(SERVICES)
