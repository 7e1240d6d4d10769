"""What the images promise: small, pinned, no root, no secrets, and they say how they are."""

from __future__ import annotations

import fnmatch
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator

import pytest

from monitor.settings import MonitorSettings
from order_services.domain.services import SERVICES
from order_services.local.plan import Plan
from tests.unit.deploy import dockerfile
from tests.unit.deploy.compose import REPOSITORY

FINAL = ("order-services", "monitor", "pgbouncer")
final_stages = pytest.mark.parametrize("name", FINAL)


def _copied() -> Iterator[tuple[str, str]]:
    """Yield stage and path of what is copied from the repository."""
    for name, stage in dockerfile.stages().items():
        for instruction, text in stage.instructions:
            if instruction in ("COPY", "ADD") and "--from=" not in text:
                *sources, _ = [word for word in shlex.split(text) if not word.startswith("--")]
                yield from ((name, source) for source in sources)


def _pins(name: str) -> dict[str, str]:
    text = (REPOSITORY / "requirements" / name).read_text()
    return dict(re.findall(r"^([a-z0-9.-]+)==(\S+)", text, re.MULTILINE))


def test_the_services_image_is_what_a_build_without_target_makes() -> None:
    assert list(dockerfile.stages())[-1] == "order-services"


@final_stages
def test_an_image_runs_as_an_ordinary_user_by_number(name: str) -> None:
    user, _, group = dockerfile.stages()[name].last("USER").partition(":")
    assert int(user) >= 10_000
    assert int(group) >= 10_000


def test_nothing_is_installed_or_copied_after_giving_up_root() -> None:
    for stage in dockerfile.stages().values():
        names = [instruction for instruction, _ in stage.instructions]
        if "USER" in names:
            assert not {"RUN", "COPY", "ADD"} & set(names[names.index("USER") :])


@final_stages
def test_an_image_says_whether_it_is_healthy(name: str) -> None:
    check = dockerfile.stages()[name].last("HEALTHCHECK")
    assert "--timeout=" in check
    assert "--start-period=" in check
    command = check.partition(" CMD ")[2]
    assert command.startswith("["), "a check in a shell leaves it behind when it is cut off"


def test_what_is_copied_exists_and_reaches_the_builder() -> None:
    ignored = (REPOSITORY / ".dockerignore").read_text().splitlines()
    allowed = [line[1:] for line in ignored if line.startswith("!")]
    assert "*" in ignored, "everything is kept out that is not named"
    copied = list(_copied())
    assert len(copied) >= 6
    for stage, source in copied:
        path = REPOSITORY / source
        assert path.exists(), f"{stage} copies {source}"
        inside = f"{source}/x" if path.is_dir() else source
        assert any(fnmatch.fnmatch(inside, rule) for rule in allowed), f".dockerignore: {source}"


def test_only_what_is_copied_reaches_the_builder() -> None:
    ignored = (REPOSITORY / ".dockerignore").read_text().splitlines()
    allowed = {line[1:].removesuffix("/**") for line in ignored if line.startswith("!")}
    assert allowed == {source for _, source in _copied()}


def test_packages_are_installed_by_hash_and_never_built_from_source() -> None:
    build = dockerfile.stages()["build"]
    installs = [
        part
        for name, text in build.instructions
        if name == "RUN"
        for part in text.split("&&")
        if "pip install" in part
    ]
    third_party, ours = installs
    assert "--require-hashes" in third_party
    assert "--only-binary :all:" in third_party
    assert "--requirement requirements/services.txt" in third_party
    # no name that pip could look up elsewhere
    assert {"--no-deps", "--no-build-isolation", "."} <= set(shlex.split(ours))
    text = (REPOSITORY / "requirements" / "services.txt").read_text()
    assert len(re.findall(r"^\S+==", text, re.MULTILINE)) == len(_pins("services.txt"))
    for block in re.split(r"\n(?=\S)", text):
        if not block.startswith("#"):
            assert "--hash=sha256:" in block, block
    assert "://" not in text


def test_the_image_has_the_versions_that_were_tested_and_no_broker_or_database() -> None:
    # what the extras bring is tested with what linters and tests need
    image, tested = _pins("services.txt"), {**_pins("dev.txt"), **_pins("run.txt")}
    assert image.items() <= tested.items(), "say make requirements"
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    name = re.compile(r"^[a-z0-9-]+")
    optional = project["optional-dependencies"]
    for requirement in (*project["dependencies"], *optional["services"], *optional["otlp"]):
        assert name.match(requirement)[0] in image  # type: ignore[index]  # every line has a name
    for requirement in optional["local"]:
        assert name.match(requirement)[0] not in image  # type: ignore[index]  # as above


def test_no_secret_is_baked_in() -> None:
    for stage in dockerfile.stages().values():
        for instruction, text in stage.instructions:
            if instruction in ("ENV", "ARG"):
                assert not re.search(r"PASSWORD|SECRET|TOKEN|KEY", text), text


@final_stages
def test_a_container_is_reached_from_outside(name: str) -> None:
    variables = dockerfile.environment(name)
    if name != "pgbouncer":
        assert variables["HOST"] == "0.0.0.0"
        assert variables["MONITOR_HOST"] == "0.0.0.0"


def test_the_ports_that_are_exposed_are_those_of_the_programs() -> None:
    plan = Plan(replicas={}, base_port=4000, monitor_port=9308, kafka_port=None, postgres_port=None)
    exposed = {name: set(dockerfile.stages()[name].last("EXPOSE").split()) for name in FINAL}
    assert exposed["order-services"] == {str(plan.first(service).port) for service in SERVICES}
    monitor_port = str(MonitorSettings.model_fields["port"].default)
    assert exposed["monitor"] == {monitor_port}
    assert monitor_port in dockerfile.stages()["monitor"].last("HEALTHCHECK")
    assert exposed["pgbouncer"] == {"6432"}


def _client_id(hostname: str, client_id: str) -> str:
    done = subprocess.run(
        [str(REPOSITORY / "deploy" / "replica.sh"), "sh", "-c", 'echo "${KAFKA_CLIENT_ID-none}"'],
        env={"PATH": "/usr/bin:/bin", "HOSTNAME": hostname}
        | ({"KAFKA_CLIENT_ID": client_id} if client_id else {}),
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_replicas_of_one_definition_get_client_ids_of_their_own() -> None:
    first = _client_id("0a1b2c3d4e5f", "payment-service")
    second = _client_id("ffffffffffff", "payment-service")
    assert (first, second) == ("payment-service-662316", "payment-service-16777215")


def test_a_host_name_that_somebody_chose_leaves_the_client_id_alone() -> None:
    assert _client_id("payment-service-2", "payment-service-2") == "payment-service-2"
    assert _client_id("", "payment-service") == "payment-service"
    assert _client_id("0a1b2c3d4e5f", "") == "none"
