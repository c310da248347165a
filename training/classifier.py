"""From a base model's files to a tokenizer and a classifier with a fresh head.

`trust_remote_code` is never on and weights are read from safetensors only.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from training.base_model import BaseModel
from training.errors import BaseModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

Task = Literal["single_label", "multi_label"]
PROBLEM_TYPES: dict[Task, str] = {
    "single_label": "single_label_classification",
    "multi_label": "multi_label_classification",
}
_SHOWN_KEYS = 3


def load_tokenizer(base: BaseModel) -> PreTrainedTokenizerFast:
    """The fast tokenizer, the only kind that saves `tokenizer.json`. Raises `BaseModelError`."""
    from transformers import AutoTokenizer

    with translated(base, "tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(  # type: ignore[no-untyped-call]
            base.folder, use_fast=True, trust_remote_code=False
        )
    if not tokenizer.is_fast:
        raise BaseModelError(
            f"{base.model_id} has no fast tokenizer (tokenizer.json), which serving needs; "
            "choose a model that has one."
        )
    if tokenizer.pad_token_id is None:
        raise BaseModelError(
            f"{base.model_id} has no padding token, so it is no encoder; choose a BERT-like model."
        )
    tokenizer.padding_side = "right"
    return tokenizer  # type: ignore[no-any-return]


def load_classifier(
    base: BaseModel,
    *,
    task: Task,
    labels: Sequence[str],
    attention: Literal["eager"] | None,
) -> PreTrainedModel:
    """The encoder with a new head, one logit for each of *labels*, in float32.

    attention: None leaves the choice to transformers. The head is drawn from torch's global generator: seed it first. Raises `BaseModelError` when the
    architecture cannot classify, needs code of its own, or does not fit the weights.
    """
    from transformers import AutoConfig, AutoModelForSequenceClassification

    with translated(base, "model"):
        config = AutoConfig.from_pretrained(
            base.folder,
            trust_remote_code=False,
            num_labels=len(labels),
            id2label=dict(enumerate(labels)),
            label2id={label: index for index, label in enumerate(labels)},
            problem_type=PROBLEM_TYPES[task],
            attn_implementation=attention,
        )
        _switch_off_dropout(config)
        model, loading = AutoModelForSequenceClassification.from_pretrained(
            base.folder,
            config=config,
            trust_remote_code=False,
            use_safetensors=True,
            dtype="float32",
            ignore_mismatched_sizes=True,  # a head for other labels gives way to a new one
            output_loading_info=True,
        )
    _check_encoder(base, model, loading["missing_keys"])
    return model  # type: ignore[no-any-return]


def position_limit(model: PreTrainedModel) -> int | None:
    """Most tokens the encoder has positions for; None when it has no limit of its own.

    RoBERTa and its kin count positions from after the padding index, so the table is larger than
    what a text may use: 514 rows for 512 tokens.
    """
    from torch import nn

    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            unusable = 0 if module.padding_idx is None else module.padding_idx + 1
            return module.num_embeddings - unusable
    limit = getattr(model.config, "max_position_embeddings", None)
    return limit if isinstance(limit, int) and limit > 0 else None


def _switch_off_dropout(config: Any) -> None:
    """Zero every dropout probability, whatever the architecture calls it."""
    for name, value in config.to_dict().items():
        if "drop" in name and isinstance(value, float):
            setattr(config, name, 0.0)


def _check_encoder(base: BaseModel, model: PreTrainedModel, missing: Sequence[str]) -> None:
    """A new head is expected; an encoder that would start from noise is a mistake."""
    prefix = f"{model.base_model_prefix}."
    lost = sorted(key for key in missing if key.startswith(prefix) and ".pooler." not in key)
    if lost:
        shown = ", ".join(lost[:_SHOWN_KEYS])
        raise BaseModelError(
            f"{base.model_id}: its weights lack {len(lost)} tensors of its architecture ({shown}); "
            "config.json and the weights do not belong together."
        )


@contextmanager
def translated(base: BaseModel, what: str) -> Iterator[None]:
    """The loaders' many exceptions as one sentence; a full disk or a bug of ours passes through.

    Their warnings are dropped: that the head is new is what we want.
    """
    from safetensors import SafetensorError
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (SafetensorError, json.JSONDecodeError, ValueError, KeyError, ImportError) as error:
        raise _wrong(base, what, error) from error
    except OSError as error:
        if error.errno is not None:  # of the system; transformers' own OSErrors carry no number
            raise
        raise _wrong(base, what, error) from error
    finally:
        logging.set_verbosity(verbosity)


def _wrong(base: BaseModel, what: str, error: Exception) -> BaseModelError:
    said = str(error).strip().partition("\n")[0]
    if "trust_remote_code" in str(error):
        said = "it needs code of its own, which miniml never runs"
    return BaseModelError(
        f"{base.model_id}: the {what} cannot be loaded ({said}); "
        "choose an encoder that transformers knows."
    )
