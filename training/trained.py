"""A classifier that was fine-tuned elsewhere, taken as it is: its weights, our order of labels.

The order is changed in the head's last layer, so nothing that comes after has to know of another.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from training.base_model import BaseModel
from training.classifier import PROBLEM_TYPES, Task, translated
from training.errors import BaseModelError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

_NO_NAME = re.compile(r"LABEL_\d+")  # what transformers calls labels that nobody named
_CLASSIFIER = "ForSequenceClassification"
_SHOWN = 5
_TOLERANCE = 1e-5


def load_trained(base: BaseModel, *, task: Task, labels: Sequence[str]) -> PreTrainedModel:
    """The model of *base* with the head it has, logit i for label i of *labels*, in float32.

    Labels without names (`LABEL_0`, ...) are taken to be in the order of *labels*. Raises
    `BaseModelError` when there is no trained head, or one for other labels.
    """
    from transformers import AutoConfig, AutoModelForSequenceClassification

    with translated(base, "model"):
        config = AutoConfig.from_pretrained(base.folder, trust_remote_code=False)
    if not any(_CLASSIFIER in name for name in config.architectures or ()):
        raise _headless(base)
    order = label_order(base, [config.id2label[i] for i in range(config.num_labels)], labels)
    config.problem_type = PROBLEM_TYPES[task]
    with translated(base, "model"):
        model, loading = AutoModelForSequenceClassification.from_pretrained(
            base.folder,
            config=config,
            trust_remote_code=False,
            use_safetensors=True,
            dtype="float32",
            output_loading_info=True,
        )
    if loading["missing_keys"]:
        raise _headless(base)
    model.eval()
    if order != list(range(len(order))):
        _reorder(base, model, order)
    model.config.id2label = dict(enumerate(labels))
    model.config.label2id = {label: place for place, label in enumerate(labels)}
    return model  # type: ignore[no-any-return]


def label_order(base: BaseModel, theirs: Sequence[str], ours: Sequence[str]) -> list[int]:
    """For each of *ours* its place among *theirs*. Raises `BaseModelError` when they are not the same."""
    if len(theirs) == len(ours) and all(map(_NO_NAME.fullmatch, theirs)):
        return list(range(len(ours)))
    if sorted(theirs) != sorted(ours):
        raise BaseModelError(
            f"{base.model_id} answers {_shown(theirs)}, and the dataset has {_shown(ours)}; give them "
            "the same names, in the model's config.json (id2label) or by `miniml transform --labels`."
        )
    return [list(theirs).index(name) for name in ours]


def _headless(base: BaseModel) -> BaseModelError:
    return BaseModelError(
        f"{base.model_id} has no trained head, so it cannot be taken as it is; leave --iterations 0 "
        "out, and it gets one."
    )


def _shown(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(map(repr, names[:_SHOWN])) + more


def _reorder(base: BaseModel, model: PreTrainedModel, order: Sequence[int]) -> None:
    """Have logit i be what logit order[i] was, and prove it. Raises `BaseModelError`."""
    import torch
    from torch import nn

    heads = [
        module
        for module in model.modules()
        if isinstance(module, nn.Linear) and module.out_features == len(order)
    ]
    before = _logits(model)
    if heads:
        with torch.no_grad():
            for values in heads[-1].parameters():  # weight (L, hidden), bias (L,)
                values.copy_(values[list(order)])
    if not heads or not torch.allclose(_logits(model), before[:, list(order)], atol=_TOLERANCE):
        raise BaseModelError(
            f"{base.model_id} has its labels in another order than the dataset, and a head whose order "
            "cannot be changed; give the dataset the model's order (`miniml transform --labels`)."
        )


def _logits(model: PreTrainedModel) -> torch.Tensor:
    """(1, L) for a text of eight tokens, whichever they are."""
    import torch

    with torch.no_grad():
        ids = torch.arange(8).unsqueeze(0)
        found: torch.Tensor = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    return found
