"""Reads Kafka's own `client.properties`, which its tools take by --command-config.

Source of the names: the configuration reference of Apache Kafka's clients. What a monitor has no
use for is passed over, as Kafka's tools do.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from monitor.settings import SettingsError

_PLAIN: Final = {
    "bootstrap.servers": "bootstrap_servers",
    "security.protocol": "security_protocol",
    "sasl.mechanism": "sasl_mechanism",
    "sasl.kerberos.service.name": "sasl_kerberos_service_name",
    "ssl.key.password": "ssl_password",
    "sasl.oauthbearer.token.endpoint.url": "sasl_oauthbearer_token_endpoint_url",
    "sasl.oauthbearer.client.credentials.client.id": "sasl_oauthbearer_client_id",
    "sasl.oauthbearer.client.credentials.client.secret": "sasl_oauthbearer_client_secret",
    "sasl.oauthbearer.scope": "sasl_oauthbearer_scope",
}
_JAAS_OPTION: Final = re.compile(r'(\w+)\s*=\s*("(?:[^"\\]|\\.)*"|[^\s;]+)')
_EXTENSION: Final = "extension_"
_TO_PEM: Final = (
    "keytool -importkeystore -srckeystore {0} -destkeystore store.p12 -deststoretype PKCS12, then "
    "openssl pkcs12 -in store.p12 -out store.pem"
)


def read_client_properties(path: Path) -> dict[str, Any]:
    """Return the settings that a file of Kafka's client properties makes, by their names here.

    Raises SettingsError with the file, the property, and what is possible.
    """
    found = _parse(path)
    settings: dict[str, Any] = {
        name: found[key] for key, name in _PLAIN.items() if found.get(key, "").strip()
    }
    # what the login module says goes first, as in Kafka before 4.1
    settings |= _login(path, found)
    url = settings.get("sasl_oauthbearer_token_endpoint_url", "")
    if url.startswith("file:"):
        del settings["sasl_oauthbearer_token_endpoint_url"]
        settings["sasl_oauth_token_file"] = unquote(urlsplit(url).path)
    for kind, name in (("truststore", "ssl_cafile"), ("keystore", "ssl_certfile")):
        location = found.get(f"ssl.{kind}.location", "").strip()
        if f"ssl.{kind}.certificates" in found or f"ssl.{kind}.certificate.chain" in found:
            raise SettingsError(
                f"{path}: certificates in the file itself are not read; put them into a PEM file and "
                f"name it by ssl.{kind}.location"
            )
        if location:
            _refuse_other_stores(
                path, f"ssl.{kind}", location, found.get(f"ssl.{kind}.type", "JKS")
            )
            settings[name] = location
    if "ssl.endpoint.identification.algorithm" in found:
        asked = found["ssl.endpoint.identification.algorithm"].strip()
        settings["ssl_check_hostname"] = bool(asked)
    return settings


def _parse(path: Path) -> dict[str, str]:
    import javaproperties  # noqa: PLC0415  # with XML and the like, 0.7 MB that a service without such a file spares

    try:
        return javaproperties.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path} can't be read: {error.strerror}") from None
    except ValueError:  # the library's own message shows the line, which may hold a password
        raise SettingsError(f"{path} is no file of Java properties in UTF-8") from None


def _login(path: Path, found: dict[str, str]) -> dict[str, str]:
    """Return what `sasl.jaas.config` says of a login."""
    jaas = found.get("sasl.jaas.config", "").strip()
    if not jaas:
        return {}
    module = jaas.split()[0].rpartition(".")[2]
    options = {
        key: re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value
        for key, value in _JAAS_OPTION.findall(jaas)
    }
    if module == "Krb5LoginModule":
        return {}  # the ticket is taken from the cache, as kinit left it
    if module == "OAuthBearerLoginModule":
        return _oauth(options)
    if module == "IAMLoginModule":
        return _aws(path, options)
    if module not in {"PlainLoginModule", "ScramLoginModule"}:
        raise SettingsError(
            f"{path}: the login module {module} of sasl.jaas.config is not known; PlainLoginModule, "
            "ScramLoginModule, OAuthBearerLoginModule, IAMLoginModule and Krb5LoginModule are"
        )
    missing = [name for name in ("username", "password") if not options.get(name)]
    if missing:
        raise SettingsError(f"{path}: sasl.jaas.config is without {' and '.join(missing)}")
    return {"sasl_username": options["username"], "sasl_password": options["password"]}


def _oauth(options: dict[str, str]) -> dict[str, str]:
    """Return what OAuthBearerLoginModule is told, as Kafka's clients before 4.1 take it."""
    named = {
        "clientId": "sasl_oauthbearer_client_id",
        "clientSecret": "sasl_oauthbearer_client_secret",
        "scope": "sasl_oauthbearer_scope",
    }
    found = {name: options[key] for key, name in named.items() if key in options}
    extensions = [
        f"{key.removeprefix(_EXTENSION)}={value}"
        for key, value in options.items()
        if key.startswith(_EXTENSION)
    ]
    if extensions:
        found["sasl_oauthbearer_extensions"] = ",".join(extensions)
    return found


def _aws(path: Path, options: dict[str, str]) -> dict[str, str]:
    """Return what aws-msk-iam-auth's IAMLoginModule is told."""
    if "awsRoleArn" in options:
        raise SettingsError(
            f"{path}: awsRoleArn of sasl.jaas.config is not read; put the role into a profile of "
            "~/.aws/config (role_arn, source_profile) and name that by awsProfileName"
        )
    profile = options.get("awsProfileName")
    return {"sasl_aws_profile": profile} if profile else {}


def _refuse_other_stores(path: Path, prefix: str, location: str, kind: str) -> None:
    if kind.strip().upper() != "PEM":
        raise SettingsError(
            f"{path}: {prefix}.type={kind.strip() or 'JKS'} can't be read here; make a PEM file of it ("
            f"{_TO_PEM.format(location)}) and set {prefix}.type=PEM"
        )
