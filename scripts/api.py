"""Writes docs/api.md: the table of paths from the API's own routes and models: `make docs`."""

from __future__ import annotations

from typing import Any, Final

from monitor.web.api import PREFIX, Api
from monitor.web.openapi import document

_HEAD: Final = """\
# What programs can ask the monitor

All of it is on the port of `monitor serve`, behind the same login and client certificates as the pages.

## The JSON API

`/api/v1/openapi.json` describes it to the letter; [schemathesis holds the running server to
that](../tests/integration/monitor/test_api_keeps_its_document.py). Null is what is not known, and never 0;
moments are Unix seconds. `heard` says whether the brokers `answered`, `refused` (then `error` has why) or were
`silent` (then what is shown is of `seen_at`). What can't be found is 404 only where every broker has answered,
and 503 with the reason where one has not. A wrong parameter is 400, one that is not known as well:
`{"error": {"message": ..., "field": ...}}`. Names in a path are percent-encoded and may hold anything.

Each list has `total`, `limit`, `offset`, and in `clusters` what it is made of: whether it is `complete`, when it
was `seen_at`, and how many groups the settings hide. `monitor lag` and `monitor groups` with `--output json`
print the same objects.
"""

_TAIL: Final = """\

`/api/v1/sd` is for Prometheus' `http_sd_configs`: this monitor (with several clusters `/probe` for each), and
the replicas in `MONITOR_SERVICE_URLS`.

## Burrow's API

`/v3/...`, `/burrow/admin` and `/burrow/admin/ready` answer as [Burrow](https://github.com/linkedin/Burrow) does:
its paths, its keys in their order, its messages, so that clients of it work with another address. It is always on;
the two health checks need no login. What differs:

- a commit's `timestamp` and `observedAt` are when a poll saw it; commits between two polls count as one;
- what is not known is null where Burrow has 0 (`current-lag`), and -1 for a log end; a partition of which the
  lag is not known is in no status;
- statuses are those of the page and `/metrics`: by Burrow's rules, and lag is what a consumer can read;
- `DELETE .../consumer/GROUP` and `POST /v3/admin/loglevel` are refused with 403 and a message in Burrow's form:
  a group is forgotten when Kafka has forgotten it, and the log level is a setting;
- of `/v3/config`, what the monitor does not have is empty; `consumer` and `notifier` have no modules.

## For node_exporter's textfile collector

`monitor lag --output prometheus --group payments > lag.prom` prints what `/metrics` has about these groups.
Rates and statuses need more than one poll: they are not in it.

## OpenTelemetry

`pip install 'kafka-lag-monitor[otlp]'`, then:

```
OTEL_METRICS_EXPORTER=otlp OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4318 monitor serve
```

The figures of `/metrics` are pushed by the same names, over HTTP with protobuf, by a thread of its own.
`OTEL_METRICS_EXPORTER=otlp` has to be said: a platform that sets an endpoint for all its programs does not make
this one push. The exporter hears OpenTelemetry's own variables: `OTEL_EXPORTER_OTLP_[METRICS_]ENDPOINT`,
`_HEADERS`, `_COMPRESSION`, `_TIMEOUT`, `_CERTIFICATE`; also `OTEL_METRIC_EXPORT_INTERVAL` (60000 ms),
`OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_SDK_DISABLED`. Counters are cumulative; where a backend wants
deltas, the collector's `cumulativetodelta` makes them. Groups are pushed as sums (`MONITOR_OTLP_LEVEL`, `group`
unless set), and what is told of each partition alone is left out.

A collector that is away costs `kafka_monitor_otlp_up` 0 and a line of the log with the cause. 2,000 groups are
30,000 samples and 2.2 MB a push, and 0.9 s of CPU (`make bench BENCH=monitor_api`, on a machine with load
16): with many groups, a longer interval, or the collector's `prometheus` receiver, which scrapes `/metrics` for 1.6 ms.
"""


def markdown() -> str:
    """Return docs/api.md."""
    paths: dict[str, Any] = document(Api(list).routes)["paths"]
    rows = []
    for path, methods in paths.items():
        operation = methods["get"]
        parameters = [each for each in operation.get("parameters", ()) if each["in"] == "query"]
        named = ", ".join(f"`{each['name']}`" for each in parameters)
        rows.append(f"| `{path}` | {operation['summary']} | {named} |")
    told: dict[str, str] = {}
    for methods in paths.values():
        for each in methods["get"].get("parameters", ()):
            if each["in"] == "query":
                told.setdefault(each["name"], f"{each['description']}{_allowed(each['schema'])}")
    return "\n".join(
        [
            _HEAD,
            "| path | | parameters |",
            "|---|---|---|",
            *rows,
            "",
            "| parameter | |",
            "|---|---|",
            *(f"| `{name}` | {text} |" for name, text in told.items()),
            "",
            f"`curl 'localhost:9308{PREFIX}/groups?only_behind=true&sort=behind&limit=10'` is a start.",
            _TAIL,
        ]
    ).removesuffix("\n")


def _allowed(schema: dict[str, Any]) -> str:
    of = schema.get("items", schema)
    if "enum" in of:
        return " " + ", ".join(f"`{each}`" for each in of["enum"]) + "."
    if "maximum" in of:
        return f" {of['minimum']} to {of['maximum']:,}; {schema['default']} unless said."
    return ""


if __name__ == "__main__":
    print(markdown())
