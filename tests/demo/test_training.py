"""The network that was trained and the file that was written from it are the same thing."""

import itertools
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the train extra is not installed")
pytest.importorskip("tokenizers", reason="the train extra is not installed")

from ggufsteer.demo.training.corpus import Corpus  # noqa: E402
from ggufsteer.demo.training.export import write_model  # noqa: E402
from ggufsteer.demo.training.tokens import ConversationEncoder, train_vocabulary  # noqa: E402
from ggufsteer.demo.training.transformer import Shape, Transformer  # noqa: E402
from ggufsteer.engine.model import LoadOptions, Model  # noqa: E402
from ggufsteer.engine.score import log_probabilities  # noqa: E402


def test_the_written_file_computes_what_the_network_computes(tmp_path: Path) -> None:
    """llama.cpp reads the exported file with the same tokens and, but for Q8_0's rounding, the same probabilities."""
    torch.manual_seed(0)
    conversations = list(itertools.islice(Corpus(1).conversations(), 40))
    tokenizer = train_vocabulary((turn.content for item in conversations for turn in item.turns), 320)
    network = Transformer(Shape(vocabulary=320, layers=2, context=256))
    for parameter in network.parameters():  # large enough for differences to show
        parameter.data.mul_(3.0)
    path = tmp_path / "network.gguf"
    write_model(path, network, tokenizer, {"seed": 0})
    tokens = ConversationEncoder(tokenizer).conversation(conversations[0]).tokens
    turns = [{"role": turn.role, "content": turn.content} for turn in conversations[0].turns]
    with Model.open(path, LoadOptions(n_ctx=512, n_threads=1)) as model:
        assert model.encode_chat(turns, add_generation_prompt=False) == tokens
        (theirs,) = log_probabilities(model, [tokens])
    with torch.no_grad():
        logits = network(torch.tensor([tokens[:-1]]))[0]
    ours = torch.log_softmax(logits, -1)[torch.arange(len(tokens) - 1), torch.tensor(tokens[1:])].numpy()
    assert np.abs(ours).mean() > 1
    assert np.std(np.asarray(theirs) - ours) < 0.1 * np.std(ours)
