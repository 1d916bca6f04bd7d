"""Labels on the policy's own answers under attack: what it goes on with after the first tokens of a training answer.

The MRM learns R on answers that people and other models wrote, and is then asked about what its search makes of the policy's
words. Here a share of what it learns from is the policy's: drawn as no defense answers under the prefilling attack, at
temperature 1, with the prompts and beginnings of the train split. The test split stays as it is, so that held-out errors compare.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from saffron import models
from saffron.chat import ChatFormats
from saffron.jobs import LabelJob
from saffron.layout import Layout
from saffron.methods.base import Block, SearchModels, SearchPrompt
from saffron.methods.random import RandomKey
from saffron.methods.sampling import draw_samples
from saffron.models import device, sense
from saffron.safety4m.card import ON_POLICY
from saffron.sources.conversations import Response, TokenisedResponse


class Rewriter:
    """Rewrites the answers of a block that are on the side ``on_policy``.

    Args:
        job: with what the policy is asked for.
        layout: where the policy is.
        formats: chat formats.
        tokenizer: of all models.

    Raises:
        ModelError: if there is no policy, or what it says cannot be right.
    """

    def __init__(self, job: LabelJob, layout: Layout, formats: ChatFormats, tokenizer: Any) -> None:
        assert job.on_policy is not None
        folder = layout.model("policy", job.seed)
        policy = models.load_lm(folder, job.runtime, device_map=job.device_map)
        sense.check_policy(policy, formats, tokenizer, folder)
        self._models = SearchModels(policy=policy, guard=None, formats=formats)
        self._key = RandomKey("safety4m", job.seed)
        self._settings, self._asked, self._size = job.safety4m, job.on_policy, job.safety4m.batch_size

    def __call__(
        self, responses: Sequence[Response], tokens: Sequence[TokenisedResponse], *, first: int
    ) -> list[TokenisedResponse]:
        """The tokens of a block with its answers rewritten; one outside the window stays there.

        Args:
            responses: of the block.
            tokens: of the responses, cut to the window.
            first: number of the first among all responses, so that a draw belongs to its response.
        """
        rewritten = list(tokens)
        prompts, eos = {}, self._models.formats.eos_id
        for place, (response, item) in enumerate(zip(responses, tokens, strict=True)):
            if response.side == ON_POLICY and item.response_ids:
                begun = [id for id in item.response_ids if id != eos][: self._asked.prefill_tokens]
                prompts[place] = (
                    begun,
                    SearchPrompt(first + place, self._models.formats.policy.prompt(item.prompt_ids) + begun, [], []),
                )
        drawn, self._size = device.in_batches(
            self._draw, [prompt for _, prompt in prompts.values()], self._size, what="search.max_new_tokens"
        )
        for (place, (begun, _)), own in zip(prompts.items(), drawn, strict=True):
            item = tokens[place]
            answer = [*begun, *own]
            if answer[-1] == eos and not self._settings.end_of_sequence:
                answer.pop()
            room = self._settings.max_tokens - len(item.prompt_ids)
            rewritten[place] = TokenisedResponse(item.prompt_ids, answer[:room])
        return rewritten

    def _draw(self, prompts: Sequence[SearchPrompt]) -> list[list[int]]:
        """The policy's own tokens after each prompt, EOS included where it is reached."""
        samples = draw_samples(Block(self._models, prompts, self._key, self._asked.max_new_tokens), 1)
        return [row[0][: length[0]] for row, length in zip(samples.tokens.tolist(), samples.lengths.tolist(), strict=True)]
