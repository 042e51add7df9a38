"""A GGUF file written as a folder of safetensors, in a process of its own: `python -m experiments.models.gguf FILE TO`.

transformers dequantises it. What is pruned afterwards is these numbers, not the ones that the file was made from.
"""

import sys
from pathlib import Path

import torch
from gguf import GGUFReader
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from experiments.console.errors import one_line
from experiments.models.skeleton import quiet

PLAIN = {"F32": torch.float32, "BF16": torch.bfloat16}


def convert(file: Path, folder: Path) -> None:
    """Writes model, tokenizer and chat template of a GGUF file to `folder`, in the type of its largest tensor; what is
    quantised becomes float16. Whatever transformers raises where it cannot read it.
    """
    largest = max(GGUFReader(file).tensors, key=lambda tensor: tensor.n_elements)
    options = {"gguf_file": file.name, "dtype": PLAIN.get(largest.tensor_type.name, torch.float16)}
    plain = GgufConfig(dequantize=True)  # transformers would keep the packed weights
    model = AutoModelForCausalLM.from_pretrained(file.parent, quantization_config=plain, **options)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(folder)


def main(file: str, folder: str) -> int:
    """Converts; 1 after a line that says why not, for the process that started this one."""
    try:
        with quiet():
            convert(Path(file), Path(folder))
    except Exception as error:  # a file can break a library anywhere
        print(one_line(error), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
