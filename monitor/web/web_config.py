"""Prometheus' `web.config.yml`: TLS, client certificates, users and headers of the pages.

The format is that of Prometheus' exporter-toolkit (docs/web-configuration.md there), and so is that it
counts as soon as it is written. A file with a mistake leaves what was before in force, and is logged.
"""

from __future__ import annotations

import re
import ssl
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

import structlog
import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from monitor.web.login import Access, HashedLogin, Login
from monitor.web.tls import Certificate, CertificateError, TlsLimits

_log = structlog.get_logger(__name__)

TlsVersion = Literal["TLS10", "TLS11", "TLS12", "TLS13"]
_VERSIONS: Final = {
    "TLS10": ssl.TLSVersion.TLSv1,
    "TLS11": ssl.TLSVersion.TLSv1_1,
    "TLS12": ssl.TLSVersion.TLSv1_2,
    "TLS13": ssl.TLSVersion.TLSv1_3,
}
# Go's names of the suites before TLS 1.3 that it counts as secure, and OpenSSL's.
_SUITES: Final = {
    f"TLS_ECDHE_{key}_WITH_{go}": f"ECDHE-{key}-{openssl}"
    for key in ("RSA", "ECDSA")
    for go, openssl in {
        "AES_128_CBC_SHA": "AES128-SHA",
        "AES_256_CBC_SHA": "AES256-SHA",
        "AES_128_GCM_SHA256": "AES128-GCM-SHA256",
        "AES_256_GCM_SHA384": "AES256-GCM-SHA384",
        "CHACHA20_POLY1305_SHA256": "CHACHA20-POLY1305",
    }.items()
}
_CURVES: Final = {"CurveP256": "prime256v1", "CurveP384": "secp384r1", "CurveP521": "secp521r1"}
_BCRYPT: Final = re.compile(r"\$2[abxy]?\$\d\d\$[./A-Za-z0-9]{53}")
_HEADERS: Final = {
    "Content-Security-Policy": None,
    "X-Frame-Options": ("deny", "sameorigin"),
    "X-Content-Type-Options": ("nosniff",),
    "X-XSS-Protection": None,
    "Strict-Transport-Security": None,
}


class WebConfigError(ValueError):
    """The file can't be used; the message has a line for each mistake, with what is allowed."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _suites(value: Any) -> Any:
    unknown = [str(name) for name in value or () if name not in _SUITES]
    if unknown:
        raise ValueError(f"{', '.join(unknown)} is none of {', '.join(sorted(_SUITES))}")
    return tuple(value or ())


def _curves(value: Any) -> Any:
    found = tuple(value or ())
    if len(found) > 1 or not set(found) <= _CURVES.keys():
        raise ValueError(f"only one curve can be set here, one of {', '.join(_CURVES)}")
    return found


class _TlsServer(_Strict):
    """Its section `tls_server_config`."""

    cert_file: Path
    key_file: Path
    client_auth_type: Literal[
        "NoClientCert", "VerifyClientCertIfGiven", "RequireAndVerifyClientCert"
    ] = "NoClientCert"
    client_ca_file: Path | None = None
    client_allowed_sans: tuple[str, ...] = ()
    min_version: TlsVersion = "TLS12"
    max_version: TlsVersion = "TLS13"
    cipher_suites: Annotated[tuple[str, ...], BeforeValidator(_suites)] = ()
    prefer_server_cipher_suites: bool = True
    curve_preferences: Annotated[tuple[str, ...], BeforeValidator(_curves)] = ()

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.client_auth_type != "NoClientCert" and self.client_ca_file is None:
            raise ValueError(f"client_auth_type {self.client_auth_type} needs client_ca_file")
        if self.client_auth_type == "NoClientCert" and self.client_ca_file is not None:
            raise ValueError("client_ca_file needs client_auth_type RequireAndVerifyClientCert")
        if self.client_allowed_sans and self.client_auth_type != "RequireAndVerifyClientCert":
            raise ValueError(
                "client_allowed_sans needs client_auth_type RequireAndVerifyClientCert"
            )
        if _VERSIONS[self.min_version] > _VERSIONS[self.max_version]:
            raise ValueError("min_version is above max_version")
        return self


def _headers(value: Any) -> Any:
    faults = []
    for name, said in (value or {}).items():
        if name not in _HEADERS:
            faults.append(f"{name} is none of {', '.join(_HEADERS)}")
        elif said and (allowed := _HEADERS[name]) and str(said).lower() not in allowed:
            faults.append(f"{name} is one of {', '.join(allowed)}")
        elif said and not str(said).isprintable():
            faults.append(f"{name} holds characters that no header may have")
    if faults:
        raise ValueError("; ".join(faults))
    return {name: str(said or "") for name, said in (value or {}).items()}


class _HttpServer(_Strict):
    """Its section `http_server_config`; HTTP/2 is not spoken, whatever `http2` says."""

    http2: bool = True
    headers: Annotated[dict[str, str], BeforeValidator(_headers)] = {}


def _users(value: Any) -> Any:
    faults = [
        f"{name}: this is no hash of bcrypt; htpasswd -nBC 10 '' makes one"
        for name, hashed in (value or {}).items()
        if not _BCRYPT.fullmatch(str(hashed))
    ]
    faults += [f"{name!r} holds a colon" for name in value or {} if ":" in str(name)]
    if faults:
        raise ValueError("; ".join(faults))
    return {str(name): str(hashed) for name, hashed in (value or {}).items()}


class WebConfig(_Strict):
    """The whole file."""

    tls_server_config: _TlsServer | None = None
    http_server_config: _HttpServer = Field(default=_HttpServer())
    basic_auth_users: Annotated[dict[str, str], BeforeValidator(_users)] = {}


def read_web_config(path: Path) -> WebConfig:
    """Read the file, paths from its folder on; raises WebConfigError with all mistakes."""
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise WebConfigError(f"{path} can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise WebConfigError(f"{path} is not UTF-8") from None
    except yaml.MarkedYAMLError as error:  # its message may show a line with a hash
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise WebConfigError(f"{path}:{line}: no YAML: {error.problem}") from None
    except yaml.YAMLError:
        raise WebConfigError(f"{path} is no YAML") from None
    if not isinstance(found or {}, dict):
        raise WebConfigError(f"{path} is no mapping of names to values")
    try:
        config = WebConfig.model_validate(found or {})
    except ValidationError as error:
        raise WebConfigError("\n".join(_explain(path, error))) from None
    tls = config.tls_server_config
    if tls is None:
        return config
    names = ("cert_file", "key_file", "client_ca_file")
    files = {name: path.parent / of for name in names if (of := getattr(tls, name)) is not None}
    missing = [
        f"{path}: tls_server_config.{name}: there is no file {of}"
        for name, of in files.items()
        if not of.is_file()
    ]
    if missing:
        raise WebConfigError("\n".join(missing))
    return config.model_copy(update={"tls_server_config": tls.model_copy(update=files)})


_NOT_READ: Final = {
    "cert": "put it into a file and name that by cert_file",
    "key": "put it into a file and name that by key_file",
    "client_ca": "put it into a file and name that by client_ca_file",
    "rate_limit": "there is no such limit here: connections are bounded, and pages are bytes that exist",
}


_SECTIONS: Final[Mapping[str, type[BaseModel]]] = {
    "": WebConfig,
    "tls_server_config": _TlsServer,
    "http_server_config": _HttpServer,
}


def _explain(path: Path, error: ValidationError) -> list[str]:
    """Return a line for each mistake, without the input: it may be a secret."""
    lines = []
    for fault in error.errors(include_url=False, include_input=False, include_context=False):
        where = ".".join(str(part) for part in fault["loc"]) or "the file"
        message = fault["msg"].removeprefix("Value error, ")
        name = str(fault["loc"][-1]) if fault["loc"] else ""
        if fault["type"] == "extra_forbidden":
            section = str(fault["loc"][0]) if len(fault["loc"]) > 1 else ""
            known = ", ".join(_SECTIONS[section].model_fields)
            message = f"this is not read; {_NOT_READ.get(name, f'there are {known}')}"
        lines.append(f"{path}: {where}: {message}")
    return lines


class WebConfigFile:
    """The file as it is now; raises WebConfigError or CertificateError if it can't be used at first."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reading = threading.Lock()
        self._read_at = self._changed_at()
        self._use(read_web_config(path))
        self.has_tls = self._certificate is not None

    @property
    def has_users(self) -> bool:
        """Say whether the pages ask for a password."""
        return isinstance(self._access.login, HashedLogin)

    def context(self) -> ssl.SSLContext:
        """Return what a new connection is to be served with; only where there is TLS."""
        self._refresh()
        if self._certificate is None:
            raise CertificateError(f"{self._path} has no tls_server_config")
        return self._certificate.context()

    def access(self) -> Access:
        """Return who may see the pages, and with which headers they go out."""
        self._refresh()
        return self._access

    def _refresh(self) -> None:
        with self._reading:
            if (changed_at := self._changed_at()) == self._read_at:
                return
            self._read_at = changed_at
            try:
                self._use(self._read_again())
            except (WebConfigError, CertificateError) as error:
                _log.error("web config not used: the one before stays in force", cause=str(error))
            else:
                _log.info("web config read", file=str(self._path))

    def _read_again(self) -> WebConfig:
        config = read_web_config(self._path)
        if (config.tls_server_config is not None) != self.has_tls:
            raise WebConfigError(f"{self._path}: TLS begins and ends with a restart only")
        return config

    def _use(self, config: WebConfig) -> None:
        tls = config.tls_server_config
        certificate = None
        if tls is not None:
            certificate = Certificate(
                tls.cert_file,
                tls.key_file,
                tls.client_ca_file,
                limits=TlsLimits(
                    _VERSIONS[tls.min_version],
                    _VERSIONS[tls.max_version],
                    ":".join(_SUITES[name] for name in tls.cipher_suites),
                    tls.prefer_server_cipher_suites,
                    _CURVES[tls.curve_preferences[0]] if tls.curve_preferences else None,
                ),
                named=f"the files that {self._path} names in tls_server_config",
            )
        users = config.basic_auth_users
        self._access = Access(
            HashedLogin(users) if users else Login(None),
            needs_certificate=tls is not None
            and tls.client_auth_type == "RequireAndVerifyClientCert",
            allowed_sans=frozenset(tls.client_allowed_sans if tls else ()),
            headers=config.http_server_config.headers,
        )
        self._certificate = certificate

    def _changed_at(self) -> int:
        try:
            return self._path.stat().st_mtime_ns
        except OSError:
            return 0
