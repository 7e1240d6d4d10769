"""The files of deploy/env, read by a shell as the guide's line reads them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from order_services.domain.services import PORTS, SERVICES
from order_services.local.plan import REPLICA_STEP
from order_services.process.settings import ServiceSettings
from tests.unit.deploy.compose import REPOSITORY

FILES = sorted((REPOSITORY / "deploy" / "env").glob("*.env"))
SHOW = "import json, os; print(json.dumps(dict(os.environ)))"


def variables(file: Path) -> dict[str, str]:
    """Return what `env $(cat FILE | xargs) PROGRAM` adds to an environment that is empty."""
    line = f"env -i $(cat {file.name} | xargs) {sys.executable} -I -c '{SHOW}'"
    done = subprocess.run(
        ["sh", "-c", line], cwd=file.parent, capture_output=True, text=True, check=True, timeout=60
    )
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    found.pop("LC_CTYPE", None)  # Python's own
    return found


def test_there_are_files_for_the_replicas_that_compose_runs() -> None:
    names = {file.name for file in FILES}
    counts = {"gateway": 3, "payment": 3, "inventory": 2, "shipping": 2, "analytics": 1}
    assert set(counts) == set(SERVICES)
    assert names == {
        f"{service}-instance-{number}.env"
        for service, count in counts.items()
        for number in range(1, count + 1)
    }


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_file_gives_a_replica_its_port_and_names(file: Path) -> None:
    found = re.fullmatch(r"([a-z]+)-instance-(\d+)\.env", file.name)
    assert found is not None
    service, number = found[1], int(found[2])
    assert variables(file) == {
        "PORT": str(PORTS[service] + REPLICA_STEP * (number - 1)),
        "KAFKA_CLIENT_ID": f"{service}-service-{number}",
        "INSTANCE_ID": str(number),
    }


def test_no_two_files_make_one_member_of_a_group() -> None:
    ids = []
    for file in FILES:
        given = {name.lower(): value for name, value in variables(file).items()}
        ids.append(ServiceSettings.model_validate(given).group_instance_id)
    assert None not in ids
    assert len(set(ids)) == len(FILES)
