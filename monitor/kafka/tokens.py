"""What expires and is fetched anew for logins: OAuth tokens and AWS credentials.

They are fetched on threads of their own: an endpoint that hangs must not hold up the one network
thread, and with it all brokers.
"""

from __future__ import annotations

import base64
import json
import re
import ssl
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Generic, NamedTuple, TypeVar

from kafka.net.sasl import register_sasl_mechanism
from kafka.net.sasl.msk import AwsMskIamClient, SaslMechanismAwsMskIam
from kafka.net.sasl.oauth import AbstractTokenProvider

from monitor.every import one_line
from monitor.settings import KafkaSettings

T = TypeVar("T")

# Of its lifetime, after which a token is renewed: `sasl.login.refresh.window.factor` of Kafka's clients.
RENEWED_AFTER: Final = 0.8
FETCH_TIMEOUT_S: Final = 4.0
# An endpoint that refuses us, or is away, is not asked by every question of every poll.
WAIT_AFTER_FAILURE_S: Final = 10.0
MAX_WAIT_S: Final = 300.0
# For how long a token counts whose endpoint does not tell it (RFC 6749 leaves that open).
UNTOLD_LIFETIME_S: Final = 300.0
# botocore renews what expires by itself: it is asked as often as this.
AWS_LOOK_S: Final = 60.0
MAX_REPLY_BYTES: Final = 1_000_000
# Where MSK's names of brokers have the region.
_MSK_HOST: Final = re.compile(r"\.kafka(?:-serverless)?\.([a-z0-9-]+)\.amazonaws\.com")


class TokenError(Exception):
    """There is no token, or no credentials; the message says why, and holds no secret."""


class Expiring(NamedTuple, Generic[T]):
    """A value and the seconds for which it is good."""

    value: T
    lifetime_s: float


class Renewed(Generic[T]):
    """Keeps what `fetch` returns until it is due again; `renew` waits, all else does not."""

    def __init__(
        self, fetch: Callable[[], Expiring[T]], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._fetch = fetch
        self._monotonic = monotonic
        self._fetching = threading.Lock()
        self._value: T | None = None
        self._due_at = self._ends_at = 0.0
        self._failure: TokenError | None = None
        self._wait_s = WAIT_AFTER_FAILURE_S
        self._retry_at = 0.0

    @property
    def is_due(self) -> bool:
        """Say whether it is time to fetch."""
        now = self._monotonic()
        return now >= self._due_at and now >= self._retry_at

    @property
    def is_good(self) -> bool:
        """Say whether there is a value that has not ended."""
        return self._value is not None and self._monotonic() < self._ends_at

    def value(self) -> T:
        """Return the last value; raises TokenError where there never was one."""
        if self._value is None:
            raise self._failure or TokenError("it was not fetched yet")
        return self._value

    @property
    def failure(self) -> TokenError | None:
        """Return why there is no value that is good, None where there is one."""
        return None if self.is_good else self._failure or TokenError("it has ended")

    def renew(self) -> None:
        """Fetch what is due."""
        with self._fetching:
            if self.is_due:
                try:
                    found = self._fetch()
                except TokenError as error:
                    self._failure = error
                    self._retry_at = self._monotonic() + self._wait_s
                    self._wait_s = min(MAX_WAIT_S, 2 * self._wait_s)
                else:
                    now = self._monotonic()
                    self._value, self._failure = found.value, None
                    self._ends_at = now + found.lifetime_s
                    self._due_at = now + RENEWED_AFTER * found.lifetime_s
                    self._wait_s = WAIT_AFTER_FAILURE_S


def of_settings(settings: KafkaSettings) -> Renewed[Any] | None:
    """Return what the settings' login needs to be fetched, None for those that need nothing."""
    if settings.sasl_mechanism == "AWS_MSK_IAM":
        return Renewed(_AwsCredentials(settings.sasl_aws_profile))
    if settings.sasl_mechanism == "OAUTHBEARER" and settings.sasl_oauth_token_file is None:
        return Renewed(ClientCredentials(settings))
    return None


# -- OAuth -----------------------------------------------------------------------------------------


class ClientCredentials:
    """Fetches a token from an endpoint by the grant of client credentials (RFC 6749, section 4.4)."""

    def __init__(self, settings: KafkaSettings) -> None:
        secret = settings.sasl_oauthbearer_client_secret
        self._url = settings.sasl_oauthbearer_token_endpoint_url or ""
        login = (
            f"{settings.sasl_oauthbearer_client_id}:{secret.get_secret_value() if secret else ''}"
        )
        self._authorization = f"Basic {base64.b64encode(login.encode()).decode()}"
        form = {"grant_type": "client_credentials"}
        if settings.sasl_oauthbearer_scope:
            form["scope"] = settings.sasl_oauthbearer_scope
        self._form = urllib.parse.urlencode(form).encode()
        context = ssl.create_default_context()
        if settings.ssl_cafile is not None:
            context.load_verify_locations(settings.ssl_cafile)
        # follows no redirect: the secret is for this address
        self._opener = urllib.request.build_opener(
            urllib.request.HTTPSHandler(context=context), _NoRedirect()
        )

    def __call__(self) -> Expiring[str]:
        """Return a token; raises TokenError."""
        request = urllib.request.Request(  # noqa: S310  # the settings allow http and https only
            self._url,
            self._form,
            {
                "Authorization": self._authorization,
                "Content-Type": "application/x-www-form-urlencoded",
                "Accept": "application/json",
            },
        )
        try:
            with self._opener.open(request, timeout=FETCH_TIMEOUT_S) as reply:
                found = json.loads(reply.read(MAX_REPLY_BYTES))
            token = found["access_token"]
            lifetime = float(found.get("expires_in") or UNTOLD_LIFETIME_S)
        except urllib.error.HTTPError as error:
            raise self._failed(f"{error.code} {error.reason}{_told(error)}") from None
        except OSError as error:
            raise self._failed(str(getattr(error, "reason", error))) from None
        except (ValueError, KeyError, TypeError):
            raise self._failed("its answer is no token") from None
        if not isinstance(token, str) or not token:
            raise self._failed("its answer is no token")
        return Expiring(token, lifetime)

    def _failed(self, why: str) -> TokenError:
        return TokenError(
            f"the token endpoint {self._url} gave no token ({one_line(why)}): see "
            "KAFKA_SASL_OAUTHBEARER_CLIENT_ID, _CLIENT_SECRET and _SCOPE"
        )


def _told(error: urllib.error.HTTPError) -> str:
    """Return OAuth's own words for a refusal (RFC 6749, section 5.2)."""
    try:
        found = json.loads(error.read(MAX_REPLY_BYTES))
        told = [found[key] for key in ("error", "error_description") if key in found]
    except (OSError, ValueError, TypeError):
        return ""
    return f", {': '.join(map(str, told))}" if told else ""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Refuse; urllib then raises the status as an error."""


class TokenFile(AbstractTokenProvider):  # type: ignore[misc]  # untyped base
    """Reads the token at each login: whoever renews it writes the file."""

    def __init__(self, path: Path, extensions: Mapping[str, str]) -> None:
        super().__init__()
        self._path, self._extensions = path, dict(extensions)

    def token(self) -> str:
        """Return what the file holds."""
        return self._path.read_text(encoding="utf-8").strip()

    def extensions(self) -> dict[str, str]:
        """Return what the broker wants to know beside the token (KIP-342)."""
        return self._extensions


class TokenProvider(AbstractTokenProvider):  # type: ignore[misc]  # untyped base
    """Gives kafka-python the token that was fetched last, also where it logs in anew (KIP-368)."""

    def __init__(self, tokens: Renewed[str], extensions: Mapping[str, str]) -> None:
        super().__init__()
        self._tokens, self._extensions = tokens, dict(extensions)

    def token(self) -> str:
        """Return the token without waiting."""
        return self._tokens.value()

    def extensions(self) -> dict[str, str]:
        """Return what the broker wants to know beside the token (KIP-342)."""
        return self._extensions


# -- AWS -------------------------------------------------------------------------------------------


class AwsKeys(NamedTuple):
    """Credentials of AWS; `region` is None where nothing names one."""

    access_key: str
    secret_key: str
    token: str | None
    region: str | None


class _AwsCredentials:
    """Finds credentials where all tools of AWS do: variables, profiles, roles of machines and pods."""

    def __init__(self, profile: str | None) -> None:
        self._profile = profile
        self._session: Any = None

    def __call__(self) -> Expiring[AwsKeys]:
        """Return credentials; raises TokenError."""
        from botocore.exceptions import BotoCoreError  # noqa: PLC0415  # an extra; takes half a second
        from botocore.session import Session  # noqa: PLC0415

        try:
            self._session = self._session or Session(profile=self._profile)
            credentials = self._session.get_credentials()
            if credentials is None:
                raise TokenError(
                    "AWS_MSK_IAM finds no credentials of AWS: set AWS_ACCESS_KEY_ID and "
                    "AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or give the machine or pod a role"
                )
            found = credentials.get_frozen_credentials()
            region = self._session.get_config_variable("region")
        except BotoCoreError as error:
            raise TokenError(f"AWS_MSK_IAM finds no credentials of AWS: {error}") from None
        return Expiring(
            AwsKeys(found.access_key, found.secret_key, found.token, region), AWS_LOOK_S
        )


class MskIam(SaslMechanismAwsMskIam):  # type: ignore[misc]  # untyped base
    """kafka-python's login of MSK with credentials that were fetched before.

    Its own fetches them, over the network, on the thread that speaks to all brokers. The credentials
    come by the only option that kafka-python hands to a mechanism unseen.
    """

    def __init__(self, **config: Any) -> None:
        super().__init__(**config)
        self._keys: Renewed[AwsKeys] = config["sasl_oauth_token_provider"]

    def _build_client(self) -> Any:
        keys = self._keys.value()
        named = _MSK_HOST.search(self.host)
        region = named[1] if named else keys.region
        if region is None:
            raise TokenError("AWS_MSK_IAM needs a region: set AWS_REGION or AWS_DEFAULT_REGION")
        return AwsMskIamClient(self.host, keys.access_key, keys.secret_key, region, keys.token)


register_sasl_mechanism("AWS_MSK_IAM", MskIam, overwrite=True)


def has_botocore() -> bool:
    """Say whether the extra `msk` is installed."""
    return find_spec("botocore") is not None
