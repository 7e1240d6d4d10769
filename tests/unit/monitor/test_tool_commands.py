"""The commands of Kafka's own tool on a group's page, with scripts and without: of all its partitions."""

import html

import pytest

from monitor.kafka.apis.offset_fetch import GroupCommits
from monitor.web.app import create_app
from tests.support.asgi import Client
from tests.unit.monitor.test_web import make


@pytest.mark.parametrize("path", ["/page/group?group=g", "/group?group=g"])
def test_what_a_groups_commits_need_is_told_by_both_pages(path: str) -> None:
    brokers, poller, _ = make()
    brokers.commits["g"] = GroupCommits({"t": {0: 1_000_000}, "gone": {0: 1}})
    poller.poll()
    told = html.unescape(Client(create_app(poller)).get(path).text)
    assert "--reset-offsets --group g --topic t --to-latest --dry-run" in told
    assert "--delete-offsets --group g --topic gone" in told
