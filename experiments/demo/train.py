"""Trains the embedded model, a small Llama, on Python's own documentation: `python -m experiments.demo.train`.

The same command gives the same weights on the same machine, Python version (the corpus is its standard library) and
number of threads. Axes: n = windows, t = tokens of a window.
"""

import argparse
import hashlib
import logging
import math
import platform
import time
from pathlib import Path

import tokenizers
import torch
from jaxtyping import Int64
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from experiments.data.stdlib import Stdlib, documents

log = logging.getLogger("experiments.demo")

SEPARATOR = "<|endoftext|>"
VOCABULARY = 2048
LENGTH = 256  # tokens of context
BATCH = 8  # windows per step
RATE = 3e-3  # peak learning rate
WARMUP = 100  # steps
DECAY = 0.1  # of matrices, not of norms


def train_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE of these texts; any text can be encoded, none needs an unknown token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.network = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=[SEPARATOR], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    special = {"bos_token": SEPARATOR, "eos_token": SEPARATOR, "pad_token": SEPARATOR}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=LENGTH, **special)


def build(tokenizer: PreTrainedTokenizerFast, generator: torch.Generator) -> LlamaForCausalLM:
    """The untrained model: matrices are normal with deviation 0.02, norms are one."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=6,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=LENGTH,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0, 0.02, generator=generator)
    return model


def batch(stream: Int64[Tensor, "tokens"], generator: torch.Generator) -> Int64[Tensor, "n t"]:
    """Windows at random places of the training stream."""
    starts = torch.randint(0, len(stream) - LENGTH + 1, (BATCH, 1), generator=generator)
    return stream[starts + torch.arange(LENGTH)]


def rate(step: int, steps: int) -> float:
    """The learning rate: a linear warm-up, then a cosine down to zero."""
    return RATE * min((step + 1) / WARMUP, 0.5 * (1 + math.cos(math.pi * step / steps)))


@torch.no_grad()
def perplexity(model: LlamaForCausalLM, windows: Int64[Tensor, "n t"]) -> float:
    """exp of the mean loss over the t - 1 predicted tokens of every window."""
    losses = [model(input_ids=part, labels=part).loss.item() * len(part) for part in windows.split(BATCH)]
    return math.exp(sum(losses) / len(windows))


def adamw(model: LlamaForCausalLM) -> torch.optim.AdamW:
    """The optimizer; weight decay acts on matrices only."""
    matrices = [parameter for parameter in model.parameters() if parameter.ndim == 2]
    norms = [parameter for parameter in model.parameters() if parameter.ndim == 1]
    groups = [{"params": matrices, "weight_decay": DECAY}, {"params": norms, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, betas=(0.9, 0.95))


def train(
    model: LlamaForCausalLM,
    stream: Int64[Tensor, "tokens"],
    heldout: Int64[Tensor, "n t"],
    steps: int,
    generator: torch.Generator,
) -> None:
    """AdamW on random windows, in place; logs the perplexity on the held-out windows on the way."""
    optimizer = adamw(model)
    began = time.monotonic()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate(step, steps)
        tokens = batch(stream, generator)
        loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % 50 == 0:
            speed = (step + 1) * BATCH * LENGTH / (time.monotonic() - began)
            log.info("step %d/%d loss %.3f, %.0f tokens/s", step + 1, steps, loss.item(), speed)
        if (step + 1) % 200 == 0:
            quality = perplexity(model, heldout)
            log.info("step %d/%d held-out perplexity %.2f on %d windows", step + 1, steps, quality, len(heldout))


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> str:
    """Writes the model and its tokenizer, over earlier ones; returns the hash of the weights file."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def run(out: Path, steps: int, seed: int, threads: int) -> None:
    """Trains, saves in float16, and logs what was done and how good it is."""
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    generator = torch.Generator().manual_seed(seed)
    log.info("Python %s, torch %s, tokenizers %s", platform.python_version(), torch.__version__, tokenizers.__version__)
    log.info("%d steps of %d x %d tokens, seed %d, threads %d", steps, BATCH, LENGTH, seed, threads)
    texts = documents("train")
    tokenizer = train_tokenizer(texts)
    stream = torch.tensor(tokenizer(SEPARATOR + SEPARATOR.join(texts), verbose=False)["input_ids"])
    windows = Stdlib(sequences=1, length=LENGTH, seed=seed).evaluation(tokenizer, LENGTH)
    model = build(tokenizer, generator)
    log.info("%d parameters, %d tokens of %d documents", model.num_parameters(), len(stream), len(texts))
    train(model, stream, windows[::10], steps, generator)
    digest = save(model.half(), tokenizer, out)
    quality = perplexity(model.float(), windows)
    log.info("float16 weights: held-out perplexity %.2f on %d windows", quality, len(windows))
    log.info("sha256 of the weights %s", digest)


def main() -> None:
    """The command: what is logged goes to the screen, and to train.log beside the model."""
    parser = argparse.ArgumentParser(prog="python -m experiments.demo.train", description="Train the demo model.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "model", help="default: the demo model")
    parser.add_argument("--steps", type=int, default=1600, help=f"of {BATCH} windows of {LENGTH} tokens (default 1600)")
    parser.add_argument("--seed", type=int, default=0, help="of the first weights and of the windows (default 0)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; part of what fixes the result (default 1)")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    handlers = [logging.StreamHandler(), logging.FileHandler(options.out.with_name("train.log"), "w")]
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=handlers)
    run(options.out, options.steps, options.seed, options.threads)


if __name__ == "__main__":
    main()
