"""The end-to-end decoder: encoder, projector and language model as one differentiable network."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, GenerationMixin
from transformers import initialization as init
from transformers.modeling_outputs import ModelOutput

from configuration_bit.configuration_bit_llm import BITLLMConfig

from .layers_bit import count_frames, ctc_loss, find_participant, values_are_cheap
from .losses_bit import masked_mean, token_loss
from .modeling_bit import BITModel, BITPreTrainedModel
from .projectors_bit import (
    BITAligner,
    BITCrossAttentionProjector,
    BITLinearProjector,
    BITMLPProjector,
    BITPhonemeHead,
    stack_frames,
)

# Arguments that only the first step of a generation needs.
_NEURAL_INPUTS = (
    "input_features",
    "input_features_mask",
    "participant_index",
    "session_index",
    "neural_tokens",
    "neural_mask",
)


@dataclass
class BITLLMOutput(ModelOutput):
    """Output of [`BITForConditionalGeneration`].

    Args:
        loss (`torch.Tensor`, *optional*): token cross-entropy plus `ctc_weight` times the CTC loss, with labels. The
            contrastive loss is the trainer's, because it needs all trials of an update.
        text_loss (`torch.Tensor`, *optional*): the cross-entropy alone, a mean over the answer's tokens.
        ctc_loss (`torch.Tensor`, *optional*): the CTC loss alone, a mean over trials.
        logits (`torch.Tensor` of shape `(B, N, V)`): scores of the next token; of the last `logits_to_keep` positions.
        past_key_values (`Cache`, *optional*): keys and values of what was read.
        ctc_logits (`torch.Tensor` of shape `(B, P, 41)`, *optional*): phoneme scores of the encoder's frames.
        neural_embeds (`torch.Tensor` of shape `(B, A)`, *optional*): one vector of each trial's activity.
        text_embeds (`torch.Tensor` of shape `(B, A)`, *optional*): one vector of each trial's sentence.
        logit_scale (`torch.Tensor`, *optional*): one over the contrastive temperature.
        hidden_states (`tuple[torch.Tensor, ...]`, *optional*): of the language model.
        attentions (`tuple[torch.Tensor, ...]`, *optional*): of the language model.
    """

    loss: torch.Tensor | None = None
    text_loss: torch.Tensor | None = None
    ctc_loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    past_key_values: Any | None = None
    ctc_logits: torch.Tensor | None = None
    neural_embeds: torch.Tensor | None = None
    text_embeds: torch.Tensor | None = None
    logit_scale: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


class BITForConditionalGeneration(BITPreTrainedModel, GenerationMixin):
    """Neural activity in, a sentence out: the encoder's frames become tokens of a language model's prompt.

    `input_ids` hold `neural_token_id` once for each neural token; [`BITLLMProcessor`] puts them there.

    Args:
        config ([`BITLLMConfig`]): the configuration.
        language_model (`PreTrainedModel`, *optional*): a loaded causal language model of `config.text_config`; default
            one with initial weights.

    Note:
        Zhang, He et al. 2025, arXiv 2511.21740, section on end-to-end decoding: MLP projector, one neural token for
        each patch of 100 ms, cross-entropy on the answer alone. Structure after transformers' AudioFlamingo3
        (Apache-2.0): expanded placeholders, `masked_scatter`, features at the first step of a generation only.

    Example:
        ```python
        >>> small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
        >>> text = {"model_type": "qwen2", "vocab_size": 30, "num_key_value_heads": 1, **small}
        >>> config = BITLLMConfig(encoder_config={"participants": {"t15": 8}, **small}, text_config=text)
        >>> model = BITForConditionalGeneration(config).eval()
        >>> prompt = torch.tensor([[5, 30, 30, 6]])
        >>> model(prompt, input_features=torch.zeros(1, 14, 8)).logits.shape
        torch.Size([1, 4, 30])

        ```
    """

    config_class = BITLLMConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    _no_split_modules = ["BITLayer"]

    def __init__(self, config: BITLLMConfig, language_model: nn.Module | None = None) -> None:
        super().__init__(config)
        encoder_config, text_config = config.encoder_config, config.text_config
        self.encoder = BITModel(encoder_config)
        if config.ctc_head:
            self.ctc_head = BITPhonemeHead(encoder_config).requires_grad_(config.ctc_weight > 0)
        in_size, text_size = encoder_config.hidden_size * config.stacking, text_config.hidden_size
        out_size = text_size if config.modality == "neural" else config.audio_hidden_size
        self.neural_projector: nn.Module
        if config.projector_type == "linear":
            self.neural_projector = BITLinearProjector(in_size, out_size)
        elif config.projector_type == "mlp":
            self.neural_projector = BITMLPProjector(in_size, config.projector_hidden_size or out_size, out_size)
        else:
            self.neural_projector = BITCrossAttentionProjector(
                in_size, config.projector_hidden_size, out_size, text_size, config.projector_dropout
            )
        if config.modality == "audio":
            self.multi_modal_projector = nn.Linear(config.audio_hidden_size, text_size)
        if config.contrastive_weight > 0:
            self.aligner = BITAligner(text_size, config.contrastive_size, config.contrastive_temperature)
        self.language_model = (
            AutoModelForCausalLM.from_config(text_config) if language_model is None else language_model
        )
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, BITAligner):
            init.constant_(module.log_scale, module.initial_log_scale)
        elif isinstance(module, BITCrossAttentionProjector):
            init.constant_(module.residual_scale, 0.5)

    def get_input_embeddings(self) -> nn.Module:
        """The language model's token embeddings.

        Returns:
            `nn.Module`: the table.
        """
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the language model's token embeddings.

        Args:
            value (`nn.Module`): the new table.
        """
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        """The language model's head.

        Returns:
            `nn.Module`: the head.
        """
        return self.language_model.get_output_embeddings()

    def num_frames(self, num_bins: int | torch.Tensor) -> int | torch.Tensor:
        """Number of encoder frames of a trial.

        Args:
            num_bins (`int` or `torch.Tensor`): number of bins.

        Returns:
            `int` or `torch.Tensor`: number of frames, never below 0.
        """
        return count_frames(num_bins, self.config.encoder_config.patch_size, self.config.encoder_config.patch_stride)

    def encode_neural(
        self,
        input_features: torch.Tensor,
        input_features_mask: torch.Tensor | None = None,
        session_index: torch.Tensor | None = None,
        participant_index: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Turn trials into tokens of the language model.

        Args:
            input_features (`torch.Tensor` of shape `(B, T, C)`): processed features, 20 ms bins, padded at the end.
            input_features_mask (`torch.Tensor` of shape `(B, T)`, *optional*): True = real bin. Default: all real.
            session_index (`torch.Tensor` of shape `(B,)`, *optional*): session of each trial.
            participant_index (`torch.Tensor` of shape `(B,)`, *optional*): participant of each trial, all equal.

        Returns:
            `tuple`: neural tokens `(B, K, D_text)`, their mask `(B, K)`, and the phoneme scores `(B, P, 41)` of the
            encoder's frames, or None without a phoneme head.
        """
        encoded = self.encoder(
            input_features,
            attention_mask=input_features_mask,
            participant_index=participant_index,
            session_index=session_index,
            return_dict=True,
        )
        frames = encoded.last_hidden_state
        ctc_logits = None
        if self.config.ctc_head:
            name = find_participant(self.config.encoder_config.participants, participant_index, input_features)
            ctc_logits = self.ctc_head(frames, name)
        joined, mask = stack_frames(frames, encoded.frame_mask, self.config.stacking)
        tokens = self.neural_projector(joined, self._text_table())
        if self.config.modality == "audio":
            tokens = self.multi_modal_projector(tokens.to(self.multi_modal_projector.weight.dtype))
        return tokens, mask, ctc_logits

    def _text_table(self) -> torch.Tensor | None:
        """All token embeddings, for the projector that reads them."""
        if self.config.projector_type != "cross_attention":
            return None
        table = self.get_input_embeddings()
        # Through the module and not its weight, which may be spread over several devices.
        rows = torch.arange(self.config.text_config.vocab_size, device=table.weight.device)
        return table(rows).detach().to(self.encoder.norm.weight.dtype)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        input_features_mask: torch.Tensor | None = None,
        participant_index: torch.Tensor | None = None,
        session_index: torch.Tensor | None = None,
        ctc_labels: torch.Tensor | None = None,
        sentence_mask: torch.Tensor | None = None,
        neural_tokens: torch.Tensor | None = None,
        neural_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Any | None = None,
        inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        embeds_only: bool = False,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> BITLLMOutput | tuple:
        """Predict the next token after every position.

        Args:
            input_ids (`torch.Tensor` of shape `(B, N)`): prompt and answer, with `neural_token_id` at the places of
                the neural tokens.
            attention_mask (`torch.Tensor` of shape `(B, N)`, *optional*): True = real token.
            labels (`torch.Tensor` of shape `(B, N)`, *optional*): the answer's tokens, -100 elsewhere.
            input_features (`torch.Tensor` of shape `(B, T, C)`, *optional*): processed features, padded at the end.
            input_features_mask (`torch.Tensor` of shape `(B, T)`, *optional*): True = real bin.
            participant_index (`torch.Tensor` of shape `(B,)`, *optional*): participant of each trial, all equal.
            session_index (`torch.Tensor` of shape `(B,)`, *optional*): session of each trial.
            ctc_labels (`torch.Tensor` of shape `(B, L)`, *optional*): phoneme classes, padded with -100; used when
                `ctc_weight` is not 0.
            sentence_mask (`torch.Tensor` of shape `(B, N)`, *optional*): True on the sentence's own tokens. Given, the
                contrasted vectors are returned.
            neural_tokens (`torch.Tensor` of shape `(B, K, D_text)`, *optional*): instead of `input_features`, what
                [`encode_neural`] made of them.
            neural_mask (`torch.Tensor` of shape `(B, K)`, *optional*): their mask.
            position_ids (`torch.Tensor` of shape `(B, N)`, *optional*): positions of the tokens.
            past_key_values (`Cache`, *optional*): what the language model has read before.
            inputs_embeds (`torch.Tensor` of shape `(B, N, D_text)`, *optional*): instead of `input_ids`, the finished
                sequence of embeddings, neural tokens included.
            use_cache (`bool`, *optional*): return keys and values.
            logits_to_keep (`int` or `torch.Tensor`): score only so many last positions (0: all), or these positions.
            embeds_only (`bool`): return the contrasted vectors and do not run the language model.
            return_dict (`bool`, *optional*): False returns a tuple.
            **kwargs: passed on to the language model, such as `output_attentions`.

        Returns:
            `BITLLMOutput` or `tuple`.

        Raises:
            ValueError: if the places and the neural tokens do not fit, or `logits_to_keep` leaves labels out.
        """
        ctc_logits = None
        if input_features is not None:
            neural_tokens, neural_mask, ctc_logits = self.encode_neural(
                input_features, input_features_mask, session_index, participant_index
            )
        output = BITLLMOutput(ctc_logits=ctc_logits)
        if inputs_embeds is None:
            if input_ids is None:
                raise ValueError(
                    "`input_ids` are missing: the processor makes the prompt with places of neural tokens."
                )
            places = input_ids == self.config.neural_token_id
            # The marker is no row of the table.
            text_embeds = self.get_input_embeddings()(input_ids.masked_fill(places, 0))
            if sentence_mask is not None and self.config.contrastive_weight > 0 and neural_tokens is not None:
                output.neural_embeds, output.text_embeds, output.logit_scale = self._contrasted(
                    neural_tokens, neural_mask, text_embeds, sentence_mask, places
                )
            if not embeds_only:
                inputs_embeds = self._insert(text_embeds, places, neural_tokens, neural_mask)
        if not embeds_only:
            told = self.language_model(
                inputs_embeds=inputs_embeds,
                attention_mask=attention_mask,
                position_ids=position_ids,
                past_key_values=past_key_values,
                use_cache=False if labels is not None and use_cache is None else use_cache,
                logits_to_keep=logits_to_keep,
                return_dict=True,
                **kwargs,
            )
            output.logits, output.past_key_values = told.logits, told.get("past_key_values")
            output.hidden_states, output.attentions = told.get("hidden_states"), told.get("attentions")
            if labels is not None:
                if isinstance(logits_to_keep, torch.Tensor):
                    raise ValueError(
                        "`labels` need the scores of the last positions: give `logits_to_keep` as a number."
                    )
                self._add_losses(output, labels, ctc_labels, input_features, input_features_mask)
        return output if (self.config.return_dict if return_dict is None else return_dict) else output.to_tuple()

    def _insert(
        self,
        text_embeds: torch.Tensor,
        places: torch.Tensor,
        neural_tokens: torch.Tensor | None,
        neural_mask: torch.Tensor | None,
    ) -> torch.Tensor:
        """Text embeddings with the neural tokens at their places."""
        if neural_tokens is None or neural_mask is None:
            if values_are_cheap(places) and bool(places.any()):
                raise ValueError(
                    f"`input_ids` have {int(places.sum())} places for neural tokens, but there are no `input_features`."
                )
            return text_embeds
        if values_are_cheap(places) and not torch.equal(places.sum(dim=1), neural_mask.sum(dim=1)):
            raise ValueError(
                f"`input_ids` have {places.sum(dim=1).tolist()} places for neural tokens, the trials give "
                f"{neural_mask.sum(dim=1).tolist()}: let BITLLMProcessor make the batch, with this model's patch size, "
                "stride and stacking."
            )
        found = neural_tokens[neural_mask].to(text_embeds.dtype)
        return text_embeds.masked_scatter(places[..., None].expand_as(text_embeds), found)

    def _contrasted(
        self,
        neural_tokens: torch.Tensor,
        neural_mask: torch.Tensor | None,
        text_embeds: torch.Tensor,
        sentence_mask: torch.Tensor,
        places: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The two vectors of each trial and the scale."""
        if self.config.contrastive_pooling == "everything":
            neural_mask, sentence_mask = torch.ones_like(neural_tokens[..., 0], dtype=torch.bool), ~places
        elif neural_mask is None:
            raise ValueError("`neural_tokens` come without their `neural_mask`.")
        neural = masked_mean(neural_tokens, neural_mask)
        return self.aligner(neural, masked_mean(text_embeds, sentence_mask.bool()))

    def _add_losses(
        self,
        output: BITLLMOutput,
        labels: torch.Tensor,
        ctc_labels: torch.Tensor | None,
        input_features: torch.Tensor | None,
        input_features_mask: torch.Tensor | None,
    ) -> None:
        """Put the losses into the output."""
        left_out = labels.shape[1] - output.logits.shape[1]
        if values_are_cheap(labels) and bool((labels[:, 1 : left_out + 1] != -100).any()):
            raise ValueError(
                f"`logits_to_keep` keeps {output.logits.shape[1]} of {labels.shape[1]} positions, which leaves labels "
                "out: keep one more position than the longest answer with its padding has."
            )
        output.loss = output.text_loss = token_loss(output.logits, labels[:, left_out:])
        if not self.config.ctc_weight:
            return
        if ctc_labels is None or input_features is None or output.ctc_logits is None:
            raise ValueError(f"ctc_weight={self.config.ctc_weight} needs `ctc_labels` and `input_features`.")
        bins = (
            torch.full(input_features.shape[:1], input_features.shape[1], device=input_features.device)
            if input_features_mask is None
            else input_features_mask.sum(dim=1)
        )
        encoder = self.config.encoder_config
        output.ctc_loss = ctc_loss(
            output.ctc_logits,
            self.num_frames(bins),
            ctc_labels,
            encoder.pad_token_id,
            zero_infinity=encoder.ctc_zero_infinity,
        )
        output.loss = output.text_loss + self.config.ctc_weight * output.ctc_loss

    @torch.no_grad()
    def generate(
        self,
        inputs: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        input_features_mask: torch.Tensor | None = None,
        participant_index: torch.Tensor | None = None,
        session_index: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """Write the sentence of each trial; all of transformers' ways to generate work.

        Args:
            inputs (`torch.Tensor` of shape `(B, N)`, *optional*): the prompt; `input_ids=` is the same.
            input_features (`torch.Tensor` of shape `(B, T, C)`): processed features. They are encoded once,
                however many beams there are.
            input_features_mask (`torch.Tensor` of shape `(B, T)`, *optional*): True = real bin.
            participant_index (`torch.Tensor` of shape `(B,)`, *optional*): participant of each trial.
            session_index (`torch.Tensor` of shape `(B,)`, *optional*): session of each trial.
            **kwargs: as in transformers, such as `attention_mask`, `num_beams`, `do_sample`, `max_new_tokens`.

        Returns:
            `torch.Tensor` of shape `(B, N + new)`, or what `return_dict_in_generate=True` asks for: the prompt and what
            follows; prompts are padded on the left, so the answer is `[:, N:]`.
        """
        if input_features is not None:
            tokens, mask, _ = self.encode_neural(input_features, input_features_mask, session_index, participant_index)
            kwargs |= {"neural_tokens": tokens, "neural_mask": mask}
        if self.config.neural_token_id < self.config.text_config.vocab_size:
            # Large tables have spare rows, of which the marker is one; it is read, never written.
            settings = kwargs.get("generation_config") or self.generation_config
            others = kwargs.get("suppress_tokens") or settings.suppress_tokens or []
            kwargs["suppress_tokens"] = [*others, self.config.neural_token_id]
        return super().generate(inputs, **kwargs)

    def prepare_inputs_for_generation(
        self, input_ids: torch.Tensor, *args: Any, is_first_iteration: bool | None = False, **kwargs: Any
    ) -> dict[str, Any]:
        """Give one step of a generation its inputs: the neural tokens at the first step only.

        Args:
            input_ids (`torch.Tensor` of shape `(B, N)`): all tokens so far.
            *args: as in transformers.
            is_first_iteration (`bool`): whether nothing was read yet.
            **kwargs: as in transformers.

        Returns:
            `dict`: arguments of [`forward`].
        """
        inputs = super().prepare_inputs_for_generation(
            input_ids, *args, is_first_iteration=is_first_iteration, **kwargs
        )
        if not is_first_iteration and inputs.get("use_cache", True):
            for name in _NEURAL_INPUTS:
                inputs.pop(name, None)
        return inputs

    @torch.no_grad()
    def score_sentences(
        self, sentences: Sequence[Sequence[int]], batch_tokens: int = 8192, **trial: torch.Tensor
    ) -> torch.Tensor:
        """Natural-log probability of given answers for one trial.

        Args:
            sentences (`Sequence[Sequence[int]]`): the answers' tokens with their end, as
                [`BITLLMProcessor.encode_answers`] gives them.
            batch_tokens (`int`): tokens per forward pass, padding included.
            **trial (`torch.Tensor`): the batch of this one trial that [`BITLLMProcessor.for_generation`] makes.

        Returns:
            `torch.Tensor` of shape `(len(sentences),)`: float64, on the CPU. The neural activity and the prompt are run
            once; an empty answer scores 0.

        Raises:
            ValueError: if there are several trials.
        """
        if trial["input_ids"].shape[0] != 1:
            raise ValueError(f"Answers are scored for one trial, got a batch of {trial['input_ids'].shape[0]}.")
        scores = torch.zeros(len(sentences), dtype=torch.float64)
        filled = sorted((i for i, row in enumerate(sentences) if len(row)), key=lambda i: len(sentences[i]))
        if not filled:
            return scores
        start = self(**trial, use_cache=True, logits_to_keep=1)
        first = start.logits[:, -1:].float()
        seen = trial["attention_mask"].long()
        for batch in _cut(filled, [len(row) for row in sentences], batch_tokens):
            longest = len(sentences[batch[-1]])
            tokens = torch.zeros(len(batch), longest, dtype=torch.long)
            real = torch.zeros(len(batch), longest, dtype=torch.bool)
            for place, index in enumerate(batch):
                tokens[place, : len(sentences[index])] = torch.tensor(list(sentences[index]))
                real[place, : len(sentences[index])] = True
            tokens, real = tokens.to(first.device), real.to(first.device)
            logits = first.expand(len(batch), -1, -1)
            if longest > 1:
                cache = copy.deepcopy(start.past_key_values)
                cache.batch_repeat_interleave(len(batch))
                mask = torch.cat([seen.expand(len(batch), -1), real[:, :-1].long()], dim=1)
                more = self(
                    tokens[:, :-1],
                    attention_mask=mask,
                    position_ids=(mask.cumsum(dim=1) - 1).clamp(min=0)[:, seen.shape[1] :],
                    past_key_values=cache,
                )
                logits = torch.cat([logits, more.logits.float()], dim=1)
            found = logits.log_softmax(dim=-1).gather(2, tokens[..., None])[..., 0].double()
            scores[batch] = found.masked_fill(~real, 0.0).sum(dim=1).cpu()
        return scores


def _cut(order: list[int], lengths: list[int], batch_tokens: int) -> list[list[int]]:
    """Cut rows in order of length into batches of bounded size."""
    batches: list[list[int]] = [[]]
    for index in order:
        if batches[-1] and (len(batches[-1]) + 1) * lengths[index] > batch_tokens:
            batches.append([])
        batches[-1].append(index)
    return batches
