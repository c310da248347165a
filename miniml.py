"""The front door: `miniml`, one sub-command a stage. It parses, calls one function, and prints.

A stage declares its options once, as a frozen dataclass whose fields carry their help; `_stage`
makes the sub-command from it. Results go to stdout, as a table or, with --json, as one JSON
document on the last line; progress, notes and errors go to stderr. An exception that carries
`exit_code` is one the user can mend: its message is printed and the code returned. A result that
carries one is shown and the code returned. Anything else is a bug and shows its traceback.
"""

from __future__ import annotations

import dataclasses
import errno
import importlib
import inspect
import json
import logging
import signal
import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated, Any, cast, get_origin, get_type_hints

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.text import Text

OUR_LOGGERS = ("training", "export", "serving", "registry", "benchmarks", "deploy")
_INTERRUPTED = 130  # 128 + SIGINT, as shells say it

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _group(name: str, told: str, parent: typer.Typer = app) -> typer.Typer:
    """A command that has commands of its own."""
    group = typer.Typer(help=told, no_args_is_help=True)
    parent.add_typer(group, name=name)
    return group


package_app = _group("package", "Look at a model package, prove it.")
cache_app = _group("cache", "The answers that a server knows.")
shadow_app = _group("shadow", "A candidate beside what is served.")
keys_app = _group("keys", "API keys: who may ask, and how much.")
registry_app = _group("registry", "Versions, aliases and lineage.")
user_app = _group("user", "Who may ask the hub, and what.", registry_app)
bench_app = _group("bench", "Load tests of an endpoint, and of the engine.")
image_app = _group("image", "Container images of a package, and of the jobs.")
job_app = _group("job", "What automated jobs hand to each other.")

Json = Annotated[bool, typer.Option("--json", help="One JSON document, last on stdout.")]


def _tell_version(asked: bool) -> None:
    if asked:
        sys.stdout.write(f"miniml {version('miniml')}\n")
        raise typer.Exit


@app.callback()
def _miniml(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_tell_version, is_eager=True, help="Which this is."),
    ] = False,
) -> None:
    """From labelled text to a fast, trustworthy endpoint."""


def _show(result: Any, *, as_json: bool) -> None:
    """*result* as a table, or as one JSON document."""
    if result is None:  # it ran until it was stopped
        return
    if as_json:
        sys.stdout.write(json.dumps(result.document(), ensure_ascii=False) + "\n")
    else:
        Console().print(result)


def _stage(parent: typer.Typer, name: str, options: str, function: str) -> None:
    """Add sub-command *name*: parse into the dataclass *options*, call *function*, show its result.

    Both are "module:name"; the options' module is light, the function's is imported on the call.
    """
    options_class: Any = _load(options)
    hints = get_type_hints(options_class, include_extras=True)

    def command(**values: Any) -> None:
        as_json = values.pop("json_")
        if parent is bench_app:
            # As Ctrl-C: a killed benchmark, too, stops its servers and keeps what it has seen.
            signal.signal(signal.SIGTERM, signal.default_int_handler)
        given = {
            key: tuple(value or ()) if get_origin(hints[key]) is tuple else value
            for key, value in values.items()
        }
        result = _load(function)(options_class(**given))
        _show(result, as_json=as_json)
        if code := getattr(result, "exit_code", 0):  # a finding, not a fault: it was shown
            raise typer.Exit(code)

    parameters = [
        _parameter(field, hints[field.name]) for field in dataclasses.fields(options_class)
    ]
    json_ = inspect.Parameter(
        "json_", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Json
    )
    command.__signature__ = inspect.Signature([*parameters, json_])  # type: ignore[attr-defined]
    command.__doc__ = options_class.__doc__
    parent.command(name)(command)


def _parameter(field: dataclasses.Field[Any], hint: Any) -> inspect.Parameter:
    """One field as a command-line parameter.

    `field.metadata`: `help`; `argument` (metavar) makes it positional; `flag` renames the option.
    """
    default = field.default
    if get_origin(hint) is tuple:  # typer repeats an option for a list
        default, hint = list(cast("tuple[str, ...]", default)) or None, list[str] | None
    text = field.metadata["help"]
    if "argument" in field.metadata:
        info: Any = typer.Argument(help=text, metavar=field.metadata["argument"])
    else:
        flag = field.metadata.get("flag", "--" + field.name.replace("_", "-"))
        # `--reuse` alone, but `--shuffle/--no-shuffle`: a switch that is off needs no way off.
        declarations = (flag,) if default is False or "flag" in field.metadata else ()
        info = typer.Option(*declarations, help=text)
    if default is dataclasses.MISSING:
        default = inspect.Parameter.empty
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[hint, info],
    )


def _load(name: str) -> Callable[..., Any]:
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)  # type: ignore[no-any-return]


_stage(app, "transform", "training.options:TransformOptions", "training.transform:transform")
_stage(app, "train", "training.options:TrainOptions", "training.train:train")
_stage(app, "export", "export.options:ExportOptions", "export.pipeline:export_package")
_stage(app, "serve", "serving.options:ServeOptions", "serving.server:serve")
_stage(app, "deploy", "serving.options:DeployOptions", "serving.rollout.deploying:deploy")
_stage(app, "predict", "serving.options:PredictOptions", "serving.predict:predict")
_stage(app, "top", "serving.options:TopOptions", "serving.observing.top:top")
_stage(app, "promote", "serving.options:PromoteOptions", "serving.shadow.promoting:promote")
_stage(shadow_app, "report", "serving.options:ShadowOptions", "serving.shadow.commands:report")
_stage(shadow_app, "start", "serving.options:StartShadowOptions", "serving.shadow.commands:start")
_stage(shadow_app, "stop", "serving.options:ShadowOptions", "serving.shadow.commands:stop")
_stage(app, "cost", "benchmarks.cost.options:CostOptions", "benchmarks.cost.run:run_cost")
_stage(cache_app, "stats", "serving.options:CacheOptions", "serving.caching.commands:cache_stats")
_stage(cache_app, "clear", "serving.options:CacheOptions", "serving.caching.commands:clear_cache")
for _verb, _options, _function in (
    ("create", "CreateKeyOptions", "create"),
    ("list", "ListKeysOptions", "list_all"),
    ("revoke", "RevokeKeyOptions", "revoke"),
):
    _stage(keys_app, _verb, f"serving.options:{_options}", f"serving.access.commands:{_function}")
for _verb, _options, _function in (
    ("inspect", "InspectOptions", "inspecting:inspect_package"),
    ("verify", "VerifyOptions", "verifying:verify_package"),
    ("diff", "DiffOptions", "comparing:diff_packages"),
    ("bench", "PackageBenchOptions", "timing:bench_package"),
):
    _stage(package_app, _verb, f"export.package_options:{_options}", f"export.packages.{_function}")
for _verb, _options, _function in (
    ("all", "suite.options:SuiteOptions", "suite.run:run_suite"),
    ("load", "options:LoadOptions", "load:run_load"),
    ("slo", "options:SloOptions", "slo.run:run_slo"),
    ("tune", "options:TuneOptions", "tune.run:run_tune"),
    ("engine", "options:EngineOptions", "engines:run_engines"),
    ("cache", "options:CacheBenchOptions", "knowing:run_cache"),
    ("peers", "options:PeersOptions", "peers.run:run_peers"),
    ("backends", "backends.options:BackendsOptions", "backends.run:run_backends"),
    ("core", "options:CoreOptions", "core.run:run_core"),
    ("planner", "options:PlannerOptions", "planning.run:run_planner"),
    ("scaling", "scaling.options:ScalingOptions", "scaling.run:run_scaling"),
    ("soak", "soak.options:SoakOptions", "soak.run:run_soak"),
    ("offline", "offline.options:OfflineBenchOptions", "offline.run:run_offline"),
    ("demo", "options:DemoOptions", "demo:run_demo"),
    ("report", "report.options:ReportOptions", "report.run:write_report"),
    ("compare", "report.options:CompareOptions", "report.run:compare_records"),
):
    _stage(bench_app, _verb, f"benchmarks.{_options}", f"benchmarks.{_function}")
for _verb, _options in (
    ("list", "ListVersionsOptions"),
    ("show", "ShowVersionOptions"),
    ("alias", "AliasOptions"),
    ("verify", "VerifyVersionOptions"),
    ("gc", "GcOptions"),
    ("push", "PushOptions"),
    ("fetch", "FetchVersionOptions"),
    ("ui", "RegistryUiOptions"),
    ("serve", "ServeRegistryOptions"),
):
    _stage(registry_app, _verb, f"registry.options:{_options}", f"registry.commands:{_verb}_")
_stage(user_app, "add", "registry.options:AddUserOptions", "registry.commands:add_user_")
_stage(user_app, "list", "registry.options:ListUsersOptions", "registry.commands:list_users_")
_stage(user_app, "remove", "registry.options:RemoveUserOptions", "registry.commands:remove_user_")
_stage(image_app, "build", "deploy.options:ImageOptions", "deploy.docker.image:build_image")
_stage(job_app, "fetch", "deploy.options:FetchOptions", "deploy.jobs.fetch:fetch_artifact")
_stage(job_app, "summary", "deploy.options:SummaryOptions", "deploy.jobs.summary:summarise")


def _set_up_logging() -> None:
    """Notes of our rooms on stderr; libraries speak only to warn."""
    handler = RichHandler(
        console=Console(stderr=True), show_time=False, show_path=False, show_level=False
    )
    handler.setFormatter(logging.Formatter("%(message)s"))
    for name in OUR_LOGGERS:
        logger = logging.getLogger(name)
        logger.setLevel(logging.INFO)
        logger.handlers[:] = [handler]
        logger.propagate = False


def main() -> None:
    """Run the command; exit 1 with one sentence on what the user can mend, 130 on Ctrl-C.

    SIGTERM ends a benchmark as Ctrl-C does, its exit code included.
    """
    _set_up_logging()
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        _fail(f"No space left on the disk ({error.filename or error}); free some and run again.", 1)
    except Exception as error:
        if (code := getattr(error, "exit_code", None)) is None:
            raise
        _fail(" ".join(filter(None, (str(error), getattr(error, "hint", "")))), code)


def _fail(message: str, code: int) -> None:
    # Not as markup: it would swallow the extra in `pip install 'miniml[signing]'`.
    said = Text.assemble(("Error:", "bold red"), " ", message)
    Console(stderr=True, soft_wrap=True).print(said, highlight=False)
    sys.exit(code)


if __name__ == "__main__":
    main()
