"""Rows of new tokens: they learn at the input and at the output, and come back as they were saved."""

from random import Random

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from datamodules.batch import collate
from datamodules.schema import Event, Query, Video
from lightning_modules import BoundaryPerception, InstructionTuning
from lightning_modules.boundary_perception import LoraSettings
from lightning_modules.trained import TrainedModel
from localizers import StructuralTokens
from models.checkpoints import load_llm, write_weights
from models.vocabulary import is_tied, word_matrices
from preparation.world.tiny import tiny_tokenizer

VIDEO = Video("v", 12.0, np.arange(12, dtype=float), np.ones((12, 8), np.float16))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Gives the folder of a tiny random base of a family, its matrices tied or not."""
    tokenizer = tiny_tokenizer(["a red robot sings", "USER ASSISTANT During which frames can we see"])

    def folder(family: str, tied: bool) -> str:
        sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
        sizes |= {"num_key_value_heads": 2, "head_dim": 8, "ffn_dim": 48, "word_embed_proj_dim": 32, "n_inner": 48}
        path = tmp_path_factory.mktemp(family)
        config = AutoConfig.for_model(family, vocab_size=len(tokenizer), tie_word_embeddings=tied, **sizes)
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(path)
        tokenizer.save_pretrained(path)
        return str(path)

    return folder


def settings(new_tokens: str) -> dict:
    return {"feature_width": 8, "tune_adapter": True, "lora": LoraSettings(4, 8, 0.0, new_tokens=new_tokens)}


def rows(made) -> list[torch.Tensor]:
    """What input and output make of the new tokens."""
    ids, llm = list(made.dialogue.special), made.model.causal_lm
    with torch.no_grad():
        out = llm.get_output_embeddings()(torch.eye(32)) - llm.get_output_embeddings()(torch.zeros(1, 32))
        return [llm.get_input_embeddings()(torch.tensor(ids)).clone(), out.T[ids].clone()]


@pytest.mark.parametrize("new_tokens", ["rows", "full"])
@pytest.mark.parametrize(("family", "tied"), [("llama", True), ("llama", False), ("gemma2", True), ("opt", True)])
def test_new_tokens_learn_at_both_ends_and_are_kept(family, tied, new_tokens, base, tmp_path):
    folder = base(family, tied)
    made = BoundaryPerception(folder, StructuralTokens(), **settings(new_tokens))
    made.configure_model()
    query = Query("q", "v", "grounding", "a red robot", (Event(2.0, 5.0, "a red robot"),))
    batch = collate([made.dialogue.example(query, VIDEO, Random(0))], 0)
    before = rows(made)
    optimizer = torch.optim.AdamW([p for p in made.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        made.model(batch).lm_loss.backward()
        optimizer.step()
    ent = list(made.dialogue.special.values()).index("<ent>")
    for old, new in zip(before, rows(made), strict=True):
        assert (new[ent] - old[ent]).abs().max() > 1e-3
    made.eval()
    with torch.no_grad():
        loss = made.model(batch).lm_loss
    write_weights(tmp_path / "model", made.weights())
    again = TrainedModel.from_run(tmp_path, dtype="float32")
    further = InstructionTuning(folder, StructuralTokens(), previous=tmp_path, **settings(new_tokens))
    for other in (again, further):
        other.configure_model()
        other.eval()
        with torch.no_grad():
            torch.testing.assert_close(other.model(batch).lm_loss, loss)
    assert is_tied(again.model.causal_lm) == tied


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox"])
def test_whole_matrices_that_peft_would_part_are_refused(family, base):
    made = BoundaryPerception(base(family, True), StructuralTokens(), **settings("full"))
    with pytest.raises(ValueError, match="one matrix for input and output, which PEFT would train apart; use its rows"):
        made.configure_model()


def test_matrices_are_found_under_any_name(base):
    for family, tied in (("gpt2", True), ("gpt_neox", False), ("llama", False)):
        llm = load_llm(base(family, tied), torch.float32)
        names, found = word_matrices(llm)
        modules = [module for path, module in llm.named_modules() if path.rpartition(".")[2] in names]
        assert found == tied
        assert modules == [llm.get_input_embeddings(), llm.get_output_embeddings()][: 1 if tied else 2]
