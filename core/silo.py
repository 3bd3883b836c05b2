"""A silo's own configuration: `silo.yaml`, below the environment, below command-line flags."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from fedhouse.config import read_yaml
from fedhouse.connectors.connector import Connector, SourceRef
from fedhouse.dataset import Name
from fedhouse.errors import ConfigurationError
from fedhouse.spark_jobs.prepared import PreparedPolicy
from fedhouse.spark_jobs.session import SparkSettings


class SiloConfig(BaseSettings):
    """What one organisation says about itself.

    `datasets` maps the names that jobs use to tables of the silo's own warehouse; `profiles` is the
    file that says how to reach it. Each key can be set by the environment: `FEDHOUSE_SILO`,
    `FEDHOUSE_SPARK__MASTER`, `FEDHOUSE_PREPARED__ALLOWED`, …
    """

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        env_prefix="FEDHOUSE_",
        env_nested_delimiter="__",
        nested_model_default_partial_update=True,
    )

    silo: Name
    profiles: Path = Path("profiles.yaml")
    target: str | None = Field(
        default=None, description="which output of each profile; its default if left out"
    )
    datasets: dict[Name, SourceRef] = Field(min_length=1)
    prepared: PreparedPolicy = PreparedPolicy()
    spark: SparkSettings = SparkSettings()

    @classmethod
    def load(cls, path: Path, flags: Mapping[str, Any] | None = None) -> SiloConfig:
        """Read a silo file; the environment overrides it, and `flags` override both.

        Raises
        ------
        ConfigurationError
            Naming the key that is wrong.
        """
        data = read_yaml(path)

        class FromFile(cls):  # type: ignore[valid-type, misc]
            @classmethod
            def settings_customise_sources(
                cls,
                settings_cls: type[BaseSettings],
                init_settings: PydanticBaseSettingsSource,
                env_settings: PydanticBaseSettingsSource,
                dotenv_settings: PydanticBaseSettingsSource,
                file_secret_settings: PydanticBaseSettingsSource,
            ) -> tuple[PydanticBaseSettingsSource, ...]:
                return init_settings, env_settings, InitSettingsSource(settings_cls, init_kwargs=data)

        merged = _construct(FromFile, dict(flags or {}), str(path))
        base = path.resolve().parent
        return merged.model_copy(update={"profiles": base / merged.profiles})

    def source(self, dataset: str) -> SourceRef:
        """The silo's table behind a dataset's name.

        Raises
        ------
        ConfigurationError
            If the silo names none.
        """
        if dataset not in self.datasets:
            raise ConfigurationError(
                f"Silo {self.silo} has no dataset '{dataset}'.",
                mend=f"Add it under datasets; there are {', '.join(self.datasets)}.",
            )
        return self.datasets[dataset]

    def connector(self, dataset: str) -> Connector:
        """The connector for a dataset's source, opened with its profile."""
        from fedhouse.connectors.profiles import load_profiles
        from fedhouse.connectors.registry import open_connector

        profiles = load_profiles(self.profiles, target=self.target)
        return open_connector(profiles[self.source(dataset).profile])


def _construct(model: type[SiloConfig], flags: dict[str, Any], origin: str) -> SiloConfig:
    from pydantic import ValidationError

    from fedhouse.config import explain

    try:
        return model(**flags)
    except ValidationError as problem:
        raise ConfigurationError(f"{origin}: {explain(problem, SiloConfig)}") from None
