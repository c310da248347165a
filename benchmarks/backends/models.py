"""What the backends run: the checkpoint, the packages, and stock graphs made of the checkpoint.

Stock is what its user would run without miniml: optimum's and ONNX Runtime's own commands.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks.backends.variant import Variant
from benchmarks.errors import PackageUnrelated, PlainModelFailed
from benchmarks.plain import MODEL, QUANTIZED, export_plain, halve_plain, quantize_plain
from serving.package import Package

_EXACT = {"INFERENCE_PRECISION_HINT": "f32"}
_BF16 = {"INFERENCE_PRECISION_HINT": "bf16"}
_BACKENDS = {
    "onnxruntime": "onnx-cpu",
    "openvino": "openvino-cpu",
    "cuda": "onnx-cuda",
}
# Every backend of this room, in the order of the tables.
BACKENDS = ("torch-cpu", "onnx-cpu", "openvino-cpu", "torch-cuda", "onnx-cuda")
YARDSTICK = "torch-cpu fp32"  # the checkpoint itself: whose answers are right by definition


def line_up(checkpoint: Path, packages: Sequence[Package], work: Path) -> tuple[Variant, ...]:
    """Every way to run *checkpoint*; graphs that `make_graphs` would make lie in *work*.

    Raises `PackageUnrelated` for a package that runs on none of our backends.
    """
    exported, quantized, halved = _graphs(work)
    variants = (
        Variant(backend="torch-cpu", precision="fp32", note="fp32", model=checkpoint),
        Variant(backend="torch-cpu", precision="bf16", note="bf16", model=checkpoint),
        Variant(backend="onnx-cpu", precision="fp32", note="fp32", model=exported),
        Variant(backend="onnx-cpu", precision="int8", note="int8 dynamic", model=quantized),
        *_stock("openvino-cpu", exported, fp32=_EXACT, bf16=_BF16),
        Variant(backend="torch-cuda", precision="fp16", note="fp16", model=checkpoint),
        Variant(backend="torch-cuda", precision="bf16", note="bf16", model=checkpoint),
        Variant(backend="onnx-cuda", precision="fp16", note="fp16", model=halved),
        *_packaged(packages),
    )
    return tuple(sorted(variants, key=lambda variant: BACKENDS.index(variant.backend)))


def make_graphs(checkpoint: Path, variants: Sequence[Variant], work: Path) -> dict[str, str]:
    """Make the graphs that *variants* run; model -> why it could not be made."""
    exported, quantized, halved = _graphs(work)
    wanted = {variant.model for variant in variants}
    failed: dict[str, str] = {}
    if wanted & {exported, quantized, halved}:
        _try(failed, exported, lambda: export_plain(checkpoint, exported.parent))
    if failed:
        return dict.fromkeys(map(str, (exported, quantized, halved)), failed[str(exported)])
    if quantized in wanted:
        _try(failed, quantized, lambda: quantize_plain(exported.parent, quantized.parent))
    if halved in wanted:
        _try(failed, halved, lambda: halve_plain(exported.parent, halved.parent))
    return failed


def _try(failed: dict[str, str], model: Path, make: Callable[[], object]) -> None:
    try:
        make()
    except PlainModelFailed as error:
        failed[str(model)] = str(error)


def _graphs(work: Path) -> tuple[Path, Path, Path]:
    return work / "fp32" / MODEL, work / "int8" / QUANTIZED, work / "fp16" / MODEL


def _stock(backend: str, model: Path, **options: Mapping[str, str]) -> tuple[Variant, ...]:
    return tuple(
        Variant(backend=backend, precision=name, note=name, model=model, options=chosen)
        for name, chosen in options.items()
    )


def _packaged(packages: Sequence[Package]) -> list[Variant]:
    """One each; those that say the same of themselves are told apart by their digests."""
    notes = Counter((package.config.runtime, package.config.precision) for package in packages)
    return [
        _package(package, twin=notes[package.config.runtime, package.config.precision] > 1)
        for package in {package.digest: package for package in packages}.values()
    ]


def _package(package: Package, *, twin: bool) -> Variant:
    config = package.config
    if config.runtime not in _BACKENDS:
        raise PackageUnrelated(
            f"Package {config.name} runs on {config.runtime}, which has no backend here; there are"
            f" {', '.join(BACKENDS)}."
        )
    # "openvino-int8-row-wise-bf16" multiplies int8: what is named first is what products are in.
    words = config.precision.replace("openvino-", "").replace("cuda-", "").split("-")
    return Variant(
        backend=_BACKENDS[config.runtime],
        precision=words[0].split()[0],
        note=f"package: {config.precision}" + (f" {package.digest[:8]}" if twin else ""),
        model=package.model_path,
        options=config.runtime_options,
        package=package.folder,
    )
