"""The page's files: small, and those of others as they were published."""

from __future__ import annotations

import gzip
import hashlib
import json
import re

import pytest

from monitor.web.app import create_app
from monitor.web.static_files import FOLDER, PREFIX, read_static_files
from tests.support.asgi import Client
from tests.unit.monitor.test_web import make

LIBRARIES = json.loads((FOLDER / "vendor" / "libraries.json").read_text())


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda library: library["file"])
def test_a_library_is_as_it_was_published_and_has_its_licence(library: dict[str, str]) -> None:
    body = (FOLDER / "vendor" / library["file"]).read_bytes()
    assert hashlib.sha256(body).hexdigest() == library["sha256"]
    licences = (FOLDER / "vendor" / "LICENSES.txt").read_text()
    assert f"{library['file']}" in licences
    assert library["licence"]


def test_every_file_of_others_is_listed() -> None:
    code = {file.name for file in (FOLDER / "vendor").iterdir()}
    assert code - {"libraries.json", "LICENSES.txt"} == {each["file"] for each in LIBRARIES}


def test_libraries_are_under_40_kb_and_all_scripts_and_styles_under_60() -> None:
    sizes = {
        path: len(file.gzipped)
        for path, file in read_static_files().items()
        if path.endswith((".js", ".css"))
    }
    assert sum(size for path, size in sizes.items() if "/vendor/" in path) < 40_000
    assert sum(sizes.values()) < 60_000


def test_no_file_names_another_host() -> None:
    for file in FOLDER.glob("*"):
        if file.is_file():
            text = file.read_text().replace("http://www.w3.org/2000/svg", "")
            assert not re.search(r"https?://|//[a-z]+\.", text), file.name


def test_files_are_compressed_cached_by_what_is_in_them_and_nothing_else_is_served() -> None:
    _, poller, _ = make()
    client = Client(create_app(poller))
    path = f"{PREFIX}overview.js"
    found = client.get(path, headers={"Accept-Encoding": "gzip"})
    assert found.status_code == 200
    assert found.headers["Content-Encoding"] == "gzip"
    assert found.content == (FOLDER / "overview.js").read_bytes()
    plain = client.get(path, headers={"Accept-Encoding": "identity"})
    assert plain.content == found.content
    assert gzip.decompress(read_static_files()[path].gzipped) == found.content
    again = client.get(path, headers={"If-None-Match": found.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    for other in ("/static/", "/static/../app.py", "/static/..%2fapp.py", "/static/nothing.js"):
        assert client.get(other).status_code == 404


def test_the_policy_allows_files_of_ours_and_nothing_inline() -> None:
    _, poller, _ = make()
    policy = Client(create_app(poller)).get("/").headers["Content-Security-Policy"]
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
