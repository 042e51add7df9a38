"""Questions whose answers are written: a few of their own, and models that answer."""

import json
from pathlib import Path

import lm_eval
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from prune.network import Network

ROOT = Path(__file__).parents[1]
FILES = ROOT.parent / "shared" / "data" / "tasks"
RECIPES = Path(lm_eval.__file__).parent / "tasks"
ROWS = [{"question": f"What is {n} and 1?", "answer": f"One more than {n}.\n#### {n + 1}"} for n in range(8)]


def load(folder):
    """A model and its tokenizer."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return Network(model, AutoTokenizer.from_pretrained(folder))


def dump(path, rows):
    """A file of rows, in a folder that is made for it."""
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def asked(folder):
    """A folder with four questions, and four examples for prompts."""
    dump(folder / "tasks" / "gsm8k_train.jsonl", ROWS[4:])
    return dump(folder / "tasks" / "gsm8k.jsonl", ROWS[:4]).parent
