"""Ports are drawn before a server binds them: nobody else may be given them meanwhile."""

import pytest

from order_services.local import ports


def test_no_port_is_drawn_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    start = ports.free_base_port(range(12))
    few = range(start, start + 12)
    monkeypatch.setattr(ports, "_drawn", set())
    monkeypatch.setattr(ports, "range_of_ports", lambda: few)
    pair = ports.free_base_port([0, 1])
    assert {pair, pair + 1, *(ports.free_port() for _ in range(10))} == set(few)
