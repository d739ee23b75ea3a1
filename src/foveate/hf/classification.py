"""Heads that classify: a whole text by its last token, or every token.

Shape legend: B batch rows, T columns, D width, L labels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import SequenceClassifierOutputWithPast, TokenClassifierOutput
from transformers.utils import can_return_tuple

from foveate.errors import FoveateError
from foveate.hf.configuration_foveate import FoveateConfig
from foveate.hf.modeling_foveate import FoveateModel, FoveatePreTrainedModel
from foveate.hf.private import CACHE


class _Classifier(FoveatePreTrainedModel):
    accepts_loss_kwargs = False  # of Trainer: the loss is a mean, to be divided by the steps that are accumulated

    def __init__(self, config: FoveateConfig) -> None:
        super().__init__(config)
        self.num_labels: int = config.num_labels or 0
        self.model = FoveateModel(config)
        self.score = nn.Linear(config.hidden_size_of_tokens, self.num_labels, bias=False)
        self.post_init()


class FoveateForSequenceClassification(_Classifier):
    """Scores of a text, read off its last token."""

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutputWithPast | tuple[Any, ...]:
        """Logits [B, L]; arguments not listed are ``FoveateModel``'s.

        A row's last token is the last that ``attention_mask`` says is one; without a mask, the last that is not the
        configuration's ``pad_token_id``, as in transformers' own models.

        Args:
            labels: [B]: floats for a regression of one label, [B, L] floats for several labels at once, else classes.

        Raises:
            FoveateError: rows of several documents, or several rows of which nothing says where they end.
        """
        outputs = self.model(
            input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            output_hidden_states=output_hidden_states,
            return_dict=True,
            **kwargs,
        )
        if outputs.documents is not None:
            raise FoveateError("a row of several documents has no one class; give each a row of its own")
        h_BTD = outputs.last_hidden_state
        last_B = self._last(input_ids, attention_mask, h_BTD)
        logits = self.score(h_BTD[torch.arange(len(h_BTD), device=h_BTD.device), last_B])
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, pooled_logits=logits, config=self.config)
        named: dict[str, Any] = {CACHE: outputs.cache}
        return SequenceClassifierOutputWithPast(loss=loss, logits=logits, hidden_states=outputs.hidden_states, **named)

    def _last(self, input_ids: Tensor | None, attention_mask: Tensor | None, h_BTD: Tensor) -> Tensor:
        """The column [B] of each row's last token."""
        B, T = h_BTD.shape[:2]
        columns = torch.arange(T, device=h_BTD.device)
        if attention_mask is not None:
            real_BT = attention_mask[:, -T:].to(h_BTD.device) != 0
        elif input_ids is not None and self.config.pad_token_id is not None:
            real_BT = input_ids.to(h_BTD.device) != self.config.pad_token_id
        elif B == 1:
            return columns[-1:]
        else:
            raise FoveateError(
                "several rows without attention_mask, and no pad_token_id in the configuration: nothing says where "
                "each ends; pass attention_mask"
            )
        return (columns * real_BT).argmax(-1)


class FoveateForTokenClassification(_Classifier):
    """Scores of every token, which has read what is before it alone."""

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        **kwargs: Any,
    ) -> TokenClassifierOutput | tuple[Any, ...]:
        """Logits [B, T, L]; ``labels`` [B, T], -100 is ignored; arguments not listed are ``FoveateModel``'s."""
        outputs = self.model(
            input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            output_hidden_states=output_hidden_states,
            return_dict=True,
            **kwargs,
        )
        logits = self.score(outputs.last_hidden_state)
        loss = None if labels is None else self.loss_function(logits, labels, self.config)
        return TokenClassifierOutput(loss=loss, logits=logits, hidden_states=outputs.hidden_states)
