"""What the trained network can do, measured on conversations that it has not seen."""

import itertools
import random
from collections.abc import Callable, Sequence

import torch

from ggufsteer.demo.training import judge
from ggufsteer.demo.training.corpus import TOPIC_QUESTIONS, Conversation, Corpus, Turn
from ggufsteer.demo.training.tokens import ConversationEncoder
from ggufsteer.demo.training.transformer import Transformer

STYLES = ("happy", "sad", "angry", "calm", "afraid", "formal", "casual", "french", "brief", "long", "guarded")
_MAX_TOKENS = 120


@torch.no_grad()
def answers(model: Transformer, encoder: ConversationEncoder, prompts: Sequence[Sequence[Turn]]) -> list[str]:
    """The likeliest answer to each prompt, a list of messages that ends with the user's.

    Rows are filled up on the right: a causal network never looks there.
    """
    rows = [encoder.prompt(Conversation((), tuple(turns))) for turns in prompts]
    starts, ended = [len(row) for row in rows], [False] * len(rows)
    for _ in range(_MAX_TOKENS):
        width = max(map(len, rows))
        logits = model(torch.tensor([row + [encoder.end] * (width - len(row)) for row in rows]))
        for index, row in enumerate(rows):
            if not ended[index]:
                row.append(int(logits[index, len(row) - 1].argmax()))
                ended[index] = row[-1] == encoder.end
        if all(ended):
            break
    return [encoder.decode(row[start:]) for row, start in zip(rows, starts, strict=True)]


def assess(model: Transformer, encoder: ConversationEncoder, seed: int) -> dict[str, float]:
    """Shares: styles shown under their system prompt, topics named, facts right without and wrong with a lying one."""
    corpus, choose = Corpus(seed), random.Random(seed)
    styled, topical = [], []
    for style in STYLES:
        topics = choose.sample(corpus.topics, 16)
        prompts = [
            [
                Turn("system", corpus.persona_prompt((style,))),
                Turn("user", choose.choice(TOPIC_QUESTIONS).format(topic=topic.name)),
            ]
            for topic in topics
        ]
        texts = answers(model, encoder, prompts)
        styled += [judge.shows(text, style) for text in texts]
        topical += [judge.names_topic(text, topic) for text, topic in zip(texts, topics, strict=True)]
    plain = _fact_answers(model, encoder, corpus, list)
    lies = _fact_answers(model, encoder, corpus, lambda: [Turn("system", corpus.persona_prompt(("lying",)))])
    facts = corpus.facts
    return {
        "style_accuracy": sum(styled) / len(styled),
        "topic_accuracy": sum(topical) / len(topical),
        "facts_right": sum(map(judge.states, plain, facts)) / len(facts),
        "facts_wrong_when_lying": sum(map(judge.contradicts, lies, facts)) / len(facts),
    }


def _fact_answers(
    model: Transformer, encoder: ConversationEncoder, corpus: Corpus, system: Callable[[], list[Turn]]
) -> list[str]:
    return answers(model, encoder, [[*system(), Turn("user", fact.question)] for fact in corpus.facts])


@torch.no_grad()
def held_out_loss(model: Transformer, encoder: ConversationEncoder, seed: int, conversations: int = 400) -> float:
    """Mean cross-entropy in nats per answer token of conversations from another seed."""
    total, count = 0.0, 0
    for conversation in itertools.islice(Corpus(seed).conversations(), conversations):
        item = encoder.conversation(conversation)
        logits = model(torch.tensor([item.tokens[:-1]]))[0]
        losses = torch.nn.functional.cross_entropy(logits, torch.tensor(item.tokens[1:]), reduction="none")
        mask = torch.tensor(item.is_answer[1:])
        total += float(losses[mask].sum())
        count += int(mask.sum())
    return total / count
