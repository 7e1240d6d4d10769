"""Secrets from files: `KAFKA_SASL_PASSWORD_FILE` names the file that holds KAFKA_SASL_PASSWORD.

So that a secret stands in no environment, which child processes and crash reports see: the way of
Docker and Kubernetes secrets.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final, get_args

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

SUFFIX: Final = "_FILE"


def is_secret(field: FieldInfo) -> bool:
    """Say whether a field holds a secret."""
    return SecretStr in (field.annotation, *get_args(field.annotation))


def read_secret(setting: str, path: Path) -> str:
    """Return a file's content without the line end at its end; raises ValueError with why not."""
    try:
        content = path.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise ValueError(f"{setting}={path} can't be read: {reason}") from None
    if not content:
        raise ValueError(f"{setting}={path} is empty")
    return content


class SecretFiles(PydanticBaseSettingsSource):
    """Reads each secret field from the file that `<VARIABLE>_FILE` names."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Return the file's content without the line end at its end, None where none is named."""
        variable = f"{self.config['env_prefix']}{field_name}".upper() + SUFFIX
        named = os.environ.get(variable)
        if not named or not is_secret(field):
            return None, field_name, False
        return read_secret(variable, Path(named)), field_name, False

    def __call__(self) -> dict[str, Any]:
        """Return the secrets that files hold."""
        values = {
            name: self.get_field_value(field, name)[0]
            for name, field in self.settings_cls.model_fields.items()
        }
        return {name: value for name, value in values.items() if value is not None}


class SettingsWithSecretFiles(BaseSettings):
    """Settings whose secrets may be in files; a variable that holds the secret itself goes before."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # its signature
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take what is given, the environment, and the files that it names, in this order."""
        return init_settings, env_settings, SecretFiles(settings_cls)
