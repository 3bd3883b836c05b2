"""A silo's own configuration: `silo.yaml`, below the environment, below command-line flags."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from fedhouse.config import FrozenModel, read_yaml
from fedhouse.connectors.connector import Connector, SourceRef
from fedhouse.dataset import Name
from fedhouse.errors import ConfigurationError
from fedhouse.spark_jobs.prepared import PreparedPolicy
from fedhouse.spark_jobs.session import SparkSettings

if TYPE_CHECKING:
    from fedhouse.federation.oversight import SiloOversight
    from fedhouse.jobs import Job

log = logging.getLogger(__name__)


class GovernanceConfig(FrozenModel):
    """Which ledger a silo's agent obeys, and by which key it speaks; paths are beside the silo file.

    `notices` is a directory of signed stops and withdrawals that came by another way than the ledger:
    they are obeyed at once.
    """

    ledger: Path
    key: str
    password_file: Path | None = None
    notices: Path | None = None


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
    governance: GovernanceConfig | None = Field(
        default=None, description="left out, the silo runs whatever job it is given"
    )

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
        changes: dict[str, Any] = {"profiles": base / merged.profiles}
        if merged.governance is not None:
            changes["governance"] = _beside(base, merged.governance)
        return merged.model_copy(update=changes)

    @contextmanager
    def oversight(self, job: Job) -> Iterator[SiloOversight]:
        """What the agent has to ask before it reads a row of `job`: its ledger, if it has one.

        Raises
        ------
        ConfigurationError
            If ledger or key do not serve, or the key acts for another silo.
        """
        from fedhouse.federation.oversight import Unwatched

        if self.governance is None:
            log.warning("no ledger is configured: nothing has to approve what runs here")
            yield Unwatched()
            return
        from fedhouse.consortium_folder import open_journal, open_ledger, open_signer
        from fedhouse.federation.governed import LedgerSilo
        from fedhouse.local_consortium import system_clock
        from fedhouse.proposals import terms

        told = self.governance
        actor, signer = open_signer(told.key, told.password_file, f"{self.silo}/agent")
        ledger = open_ledger(told.ledger)
        try:
            yield LedgerSilo(
                journal=open_journal(told.ledger, ledger, actor, signer),
                job=job.digest,
                terms=terms(job),
                member=self.silo,
                suite=job.dataset.digest,
                clock=system_clock,
                notices=told.notices,
            )
        finally:
            ledger.close()

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


def _beside(base: Path, told: GovernanceConfig) -> GovernanceConfig:
    """The same with its paths made absolute: they are beside the silo file."""
    changes: dict[str, Any] = {"ledger": base / told.ledger}
    if not told.key.startswith("pkcs11:"):
        changes["key"] = str(base / told.key)
    for name in ("password_file", "notices"):
        if (path := getattr(told, name)) is not None:
            changes[name] = base / path
    return told.model_copy(update=changes)


def _construct(model: type[SiloConfig], flags: dict[str, Any], origin: str) -> SiloConfig:
    from pydantic import ValidationError

    from fedhouse.config import explain

    try:
        return model(**flags)
    except ValidationError as problem:
        raise ConfigurationError(f"{origin}: {explain(problem, SiloConfig)}") from None
