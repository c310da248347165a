"""What a deployment can be told: by `miniml serve`, by `serve run ... key=value`, or by MINIML_*."""

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from serving.options import Device, ServeOptions


class ServeSettings(BaseSettings):
    """Arguments of `serving.app:build`; unknown names are refused."""

    model_config = SettingsConfigDict(env_prefix="MINIML_", extra="forbid", frozen=True)

    package: str = Field(description="Package reference: NAME, NAME@alias, a sealed folder, ...")
    digest: str | None = Field(
        default=None, pattern="^[0-9a-f]{64}$", description="Refuse any other package."
    )
    device: Device = Field(default="auto", description="Refuse a package for the other device.")
    lanes: int | None = Field(default=None, ge=1, description="Batches run at once.")
    threads: int | None = Field(default=None, ge=1, description="Threads of each lane.")
    max_batch: int = Field(default=32, ge=1, description="Texts in one batch at most.")
    max_batch_tokens: int | None = Field(
        default=None, ge=1, description="Tokens in a batch of several, with padding."
    )
    max_queue_ms: float = Field(default=2000.0, gt=0, description="Work that may wait; then 429.")
    max_body_bytes: int = Field(default=4 * 2**20, ge=1, description="Request body; then 413.")
    max_text_chars: int = Field(default=100_000, ge=1, description="One text; then 413.")
    max_texts: int = Field(default=1024, ge=1, description="Texts in one call; then 413.")


def settings_for(options: ServeOptions, *, package: str, digest: str) -> ServeSettings:
    """What `miniml serve` with *options* tells the application; the rest is MINIML_* or default."""
    return ServeSettings(
        package=package,
        digest=digest,
        device=options.device,
        lanes=options.lanes,
        threads=options.threads,
        max_queue_ms=options.max_queue_ms,
    )
