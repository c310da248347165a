"""What a deployment can be told: by `miniml serve`, by `serve run ... key=value`, or by MINIML_*."""

import json
import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, StringConstraints
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from serving.access.keys import is_loopback, keys_for
from serving.amounts import share
from serving.canonical import ALLOW_CODE
from serving.errors import ServingError
from serving.locate import pin
from serving.observing.log_file import STANDARD_OUTPUT
from serving.options import Device, ServeOptions

Digest = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]
_COLLECTORS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def _listed(value: Any) -> Any:
    """What `serve run ... also='["a", "b"]'` and the environment say, as a list; one name is one."""
    if not isinstance(value, str):
        return value
    return json.loads(value) if value.lstrip().startswith("[") else [value]


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
    gpus: float | None = Field(
        default=None, gt=0, le=1, description="GPU of a replica whose package runs on one."
    )
    min_replicas: int = Field(default=1, ge=0, description="Replicas there are at least.")
    max_replicas: int = Field(default=1, ge=1, description="Replicas there may be.")
    max_replicas_per_node: int | None = Field(
        default=None, ge=1, le=100, description="On one machine of a cluster."
    )
    queue_goal_ms: float = Field(
        default=50.0,
        gt=0,
        description="How long a text should wait, on average; more: fewer replicas.",
    )
    keep_s: float = Field(
        default=60.0, ge=0, description="A replica goes once unneeded for this long."
    )
    idle_s: float = Field(
        default=300.0, ge=0, description="The last one, where min_replicas is 0, without work."
    )
    max_batch: int = Field(default=32, ge=1, description="Texts in one batch at most.")
    max_batch_tokens: int | None = Field(
        default=None, ge=1, description="Tokens in a batch of several, with padding."
    )
    max_queue_ms: float = Field(default=2000.0, gt=0, description="Work that may wait; then 429.")
    cache_bytes: int = Field(
        default=16 * 2**20, ge=0, description="Memory for answers that are known; 0: none are kept."
    )
    cache_ttl_s: float = Field(default=600.0, gt=0, description="Seconds that an answer is kept.")
    redis_url: str | None = Field(
        default=None, description="redis://...: answers that replicas share."
    )
    redis_budget_ms: float = Field(
        default=5.0, gt=0, description="Milliseconds that Redis may take; then it is computed."
    )
    max_body_bytes: int = Field(default=4 * 2**20, ge=1, description="Request body; then 413.")
    body_timeout_s: float = Field(default=30.0, gt=0, description="Until a body came; then 408.")
    max_streams: int = Field(default=64, ge=1, description="Streams of lines at once; then 429.")
    keys: str | None = Field(default=None, description="File of API keys; who has none gets 401.")
    local_only: bool = Field(default=False, description="gRPC: refuse callers from other machines.")
    rollout_without_key: bool = Field(
        default=False, description="Without keys: who is on this machine may change the package."
    )
    shadow: str | None = Field(
        default=None, description="Reference of a candidate that is compared with the package."
    )
    shadow_digest: str | None = Field(
        default=None, pattern="^[0-9a-f]{64}$", description="Refuse any other candidate."
    )
    shadow_share: float = Field(
        default=0.1, ge=0, le=1, description="Of the requests that it answers, too, aside."
    )
    also: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed)] = Field(
        default=(), description="References of models beside the package, as a list in JSON."
    )
    also_digests: Annotated[tuple[Digest, ...], NoDecode, BeforeValidator(_listed)] = Field(
        default=(), description="Refuse any others, in this order."
    )
    models_bytes: int = Field(
        default=2**30, ge=0, description="Memory for these together, before one unused goes."
    )
    allow_code: str | None = Field(
        default=None, description="module:function that a package may have its texts changed by."
    )
    max_text_chars: int = Field(default=100_000, ge=1, description="One text; then 413.")
    max_texts: int = Field(default=1024, ge=1, description="Texts in one call; then 413.")
    otlp_endpoint: str | None = Field(
        default=None, pattern="^https?://", description="Collector of traces, OTLP over HTTP."
    )
    trace_share: float = Field(
        default=1.0, ge=0, le=1, description="Of the requests whose caller does not trace."
    )
    request_log: Path | None = Field(
        default=None, description="File or socket for a JSON line a request."
    )
    log_texts: bool = Field(default=False, description="Put the texts into these lines, too.")

    @property
    def traced(self) -> bool:
        """Whether spans are sent: where to stands here, or in OpenTelemetry's own environment."""
        if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
            return False
        return bool(self.otlp_endpoint or any(os.environ.get(name) for name in _COLLECTORS))


def settings_for(options: ServeOptions, *, package: str, digest: str) -> ServeSettings:
    """What `miniml serve` with *options* tells the application; the rest is MINIML_* or default.

    Raises what `keys_for` does, what `pin` does of a shadow, and `ServingError` for a way to trace or to log that cannot be.
    """
    keys = keys_for(options)
    _refuse_odd_observing(options)
    shadow, shadow_digest = pin(options.shadow) if options.shadow else (None, None)
    log = options.request_log
    return ServeSettings(
        package=package,
        digest=digest,
        device=options.device,
        lanes=options.lanes,
        threads=options.threads,
        gpus=options.gpus,
        min_replicas=options.min_replicas,
        max_replicas=most_replicas(options),
        max_replicas_per_node=options.max_replicas_per_node,
        queue_goal_ms=options.queue_goal_ms,
        max_queue_ms=options.max_queue_ms,
        cache_bytes=round(options.cache_mb * 2**20),
        cache_ttl_s=options.cache_ttl_s,
        redis_url=options.redis_url,
        keys=None if keys is None else str(keys),
        # Ray binds the ports of gRPC on every interface; who listens here alone answers here alone.
        local_only=bool(options.grpc_port) and keys is None and is_loopback(options.host),
        rollout_without_key=keys is None and is_loopback(options.host),
        shadow=shadow,
        shadow_digest=shadow_digest,
        shadow_share=share(options.share, flag="--share"),
        **_beside_the_first(options),
        # The environment's word, too, so that it is written down with the rest.
        allow_code=options.allow_code or os.environ.get(ALLOW_CODE),
        otlp_endpoint=options.otlp,
        trace_share=options.trace_share,
        request_log=log if log in (None, STANDARD_OUTPUT) else log.absolute(),
        log_texts=options.log_texts,
    )


def _beside_the_first(options: ServeOptions) -> dict[str, Any]:
    pins = [pin(reference) for reference in options.also]
    return {
        "also": tuple(reference for reference, _ in pins),
        "also_digests": tuple(digest for _, digest in pins),
        "models_bytes": round(options.models_mb * 2**20),
    }


def _refuse_odd_observing(options: ServeOptions) -> None:
    if options.otlp is not None and not options.otlp.startswith(("http://", "https://")):
        raise ServingError(
            f"--otlp must be the URL of a collector, http://HOST:4318, not {options.otlp}."
        )
    if not 0 <= options.trace_share <= 1:
        raise ServingError(f"--trace-share must be from 0 to 1, not {options.trace_share:g}.")
    if options.log_texts and options.request_log is None:
        raise ServingError("--log-texts says what is in the log; name one with --request-log.")


def most_replicas(options: ServeOptions) -> int:
    """What was said, or as many as at least. Raises `ServingError` for bounds that cannot be."""
    least = options.min_replicas
    most = max(1, least) if options.max_replicas is None else options.max_replicas
    if not 0 <= least <= most or most == 0:
        raise ServingError(
            f"There cannot be {least} to {most} replicas; --max-replicas must be 1 or more, and"
            " --min-replicas from 0 up to it."
        )
    return most
