"""Laws of opening on a GPU: what is asked of ONNX Runtime, and what is said when it cannot."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import onnxruntime as ort
import pytest

from serving.app import build
from serving.cuda import CudaSession, bucket_of
from serving.errors import PackageError
from serving.gpu import GPU_RUNTIMES, default_streams, gpus_for, tensorrt_options
from serving.lanes import Lanes
from serving.options import Device
from serving.package import Package, Runtime
from serving.session import Encoding, open_session
from serving.settings import ServeSettings

TEXT = Encoding(ids=(2, 5, 3), type_ids=(0, 0, 0))
MakePackage = Callable[..., Package]
_ALL = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
_open_for_real = ort.InferenceSession


class GpuBuild:
    """An ONNX Runtime that says it has the GPU's providers, and runs what it opens on the CPU.

    Says no to CUDA graphs where *records* is false, and starts no GPU where *starts* is.
    """

    def __init__(self, *, records: bool = True, starts: bool = True) -> None:
        self.records, self.starts = records, starts
        self.opened: list[dict[str, dict[str, str]]] = []
        self.run_numbers: list[str] = []

    def __call__(self, path: str, settings: Any, *, providers: list[Any], **more: Any) -> Any:
        """As `InferenceSession`."""
        assert more == {"enable_fallback": 0}
        given = dict((one, {}) if isinstance(one, str) else one for one in providers)
        self.opened.append(given)
        if given.get("CUDAExecutionProvider", {}).get("enable_cuda_graph") == "1":
            assert self.records, "all compute graph nodes have not been partitioned"
        session = _open_for_real(path, settings, providers=["CPUExecutionProvider"])
        session.get_providers = lambda: list(given) if self.starts else ["CPUExecutionProvider"]
        run = session.run_with_iobinding

        def noted(binding: Any, options: Any) -> None:
            self.run_numbers.append(options.get_run_config_entry("gpu_graph_id"))
            run(binding, options)

        session.run_with_iobinding = noted
        return session


@pytest.fixture
def gpu_build(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> GpuBuild:
    """Put in place of this machine's ONNX Runtime; buffers lie in this machine's memory."""
    installed = GpuBuild()
    monkeypatch.setenv("MINIML_HOME", str(tmp_path))
    monkeypatch.setattr("serving.gpu.ort.get_available_providers", lambda: _ALL)
    monkeypatch.setattr("serving.gpu.ort.InferenceSession", installed)
    monkeypatch.setattr("serving.gpu.CudaSession", partial(CudaSession, device="cpu"))
    return installed


def test_cuda_records_graphs(package: Package, gpu_build: GpuBuild) -> None:
    """A session a stream, each opened for CUDA graphs, and the runs are numbered for them."""
    session = open_session(package.model_path, threads=1, streams=2, runtime="cuda")
    session.run([TEXT])

    assert gpu_build.opened == [{"CUDAExecutionProvider": {"enable_cuda_graph": "1"}}] * 2
    assert gpu_build.run_numbers == ["1"]


@pytest.mark.parametrize("options", [{}, {"enable_cuda_graph": "0", "use_tf32": "0"}])
def test_a_graph_that_cannot_be_recorded_is_run_plainly(
    package: Package, gpu_build: GpuBuild, options: dict[str, str]
) -> None:
    """Refused by ONNX Runtime, or told by the package: the same answers without CUDA graphs."""
    gpu_build.records = False
    session = open_session(package.model_path, threads=1, runtime="cuda", options=options)
    session.run([TEXT])

    assert gpu_build.opened[-1] == {"CUDAExecutionProvider": {"enable_cuda_graph": "0", **options}}
    assert gpu_build.run_numbers == ["-1"]


@pytest.mark.parametrize("runtime", GPU_RUNTIMES)
def test_a_gpu_that_does_not_start_is_one_sentence(
    package: Package, gpu_build: GpuBuild, runtime: Runtime
) -> None:
    """ONNX Runtime would go on with the CPU alone; we do not."""
    gpu_build.starts = False

    with pytest.raises(PackageError, match=r"did not start for model\.onnx; is there a GPU here"):
        open_session(package.model_path, threads=1, runtime=runtime)


def test_tensorrt_builds_one_engine_for_all_buckets(
    package: Package, gpu_build: GpuBuild, tmp_path: Path
) -> None:
    """Its profile spans every bucket to 64 texts, its cache is in our home, a package may differ."""
    open_session(
        package.model_path,
        threads=1,
        runtime="tensorrt",
        options={"trt_fp16_enable": "0"},
        max_length=100,
    )
    options = gpu_build.opened[-1]["TensorrtExecutionProvider"]
    largest = bucket_of(64, 100, max_length=100)

    assert list(gpu_build.opened[-1]) == _ALL[:2]
    assert options["trt_fp16_enable"] == "0"
    assert options["trt_profile_min_shapes"] == "input_ids:1x1,attention_mask:1x1"
    assert options["trt_profile_max_shapes"] == ",".join(
        f"{name}:{largest.batch}x{largest.length}" for name in ("input_ids", "attention_mask")
    )
    assert options["trt_engine_cache_enable"] == "1"
    assert Path(options["trt_engine_cache_path"]).is_relative_to(tmp_path)


def test_an_engine_is_kept_for_its_own_graph(tmp_path: Path, gpu_build: GpuBuild) -> None:
    """Two graphs have two caches, one graph has one; the same with other constants is another."""
    del gpu_build  # for its home

    def folder(graph: bytes, constants: bytes = b"") -> str:
        (tmp_path / "model.onnx").write_bytes(graph)
        (tmp_path / "model.onnx.data").write_bytes(constants)
        given = tensorrt_options(tmp_path / "model.onnx", max_length=64, inputs=("input_ids",))
        return given["trt_engine_cache_path"]

    assert folder(b"one") == folder(b"one") != folder(b"another")
    assert folder(b"one", b"1") == folder(b"one", b"1") != folder(b"one", b"2")


@pytest.mark.parametrize(
    ("runtime", "device", "gpus"),
    [
        ("onnxruntime", "auto", 0),
        ("openvino", "cpu", 0),
        ("cuda", "auto", 1),
        ("tensorrt", "cuda", 1),
        ("onnxruntime", "cuda", None),
        ("openvino", "cuda", None),
        ("cuda", "cpu", None),
    ],
)
def test_a_package_runs_on_what_it_was_exported_for(
    make_package: MakePackage, runtime: Runtime, device: Device, gpus: int | None
) -> None:
    """Anything else is refused, and the export that would do it is named."""
    config = make_package(runtime=runtime).config
    if gpus is not None:
        assert gpus_for(config, device) == gpus
        return
    with pytest.raises(PackageError, match=f"miniml export --target {device} for one"):
        gpus_for(config, device)


def test_replicas_may_share_a_gpu(make_package: MakePackage) -> None:
    """Ray is asked for the share that was told; a package for a CPU has none to share."""
    package = make_package(runtime="cuda")
    settings = ServeSettings(package=str(package.folder), gpus=0.5, max_replicas_per_node=2)
    running: Any = build(settings)._bound_deployment

    assert running.ray_actor_options["num_gpus"] == 0.5
    assert running._replica_config.max_replicas_per_node == 2
    with pytest.raises(PackageError, match=r"have no GPU to share; leave out --gpus 0\.5"):
        gpus_for(make_package().config, "auto", 0.5)


@pytest.mark.parametrize("runtime", ["onnxruntime", "cuda"])
def test_the_replica_asks_ray_for_what_it_needs(
    make_package: MakePackage, runtime: Runtime
) -> None:
    """A GPU and one lane for a GPU's package; cores and a lane a core for a CPU's."""
    package = make_package(runtime=runtime)
    application: Any = build(ServeSettings(package=str(package.folder), threads=1))
    deployment = application._bound_deployment
    lanes = next(given for given in deployment.init_args if isinstance(given, Lanes))
    needs = deployment.ray_actor_options

    assert needs["num_cpus"] == lanes.count
    assert needs.get("num_gpus", 0) == int(runtime == "cuda")
    if runtime == "cuda":
        assert lanes.count == default_streams("cuda") == 1


def test_another_package_than_asked_for_is_refused(make_package: MakePackage) -> None:
    """A digest in the settings binds, also where the folder was written anew."""
    package, other = make_package(), make_package(max_length=16)
    build(ServeSettings(package=str(package.folder), digest=package.digest))

    with pytest.raises(PackageError, match=f"is package {other.digest[:12]}, not"):
        build(ServeSettings(package=str(other.folder), digest=package.digest))
