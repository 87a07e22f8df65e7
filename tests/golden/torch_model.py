#!/usr/bin/env python3
"""Makes torch_model/ with PyTorch, for tests/e2e/torch.c: see README.md.

state_dict.safetensors   the state_dict of a small nn.Sequential, as safetensors.torch.save_file writes it
pass.safetensors         an input batch "x" and labels "y", and what PyTorch makes of them: the logits, the
                         loss, and the gradients of loss.backward() as "grad/0.weight" and so on, "grad/x"
"""
import pathlib

import torch
from safetensors.torch import save_file
from torch import nn

FOLDER = pathlib.Path(__file__).parent / "torch_model"


def main():
    torch.manual_seed(20240229)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 12), nn.GELU(), nn.Linear(12, 5))
    x = torch.randn(16, 8, requires_grad=True)
    y = torch.randint(5, (16,))
    logits = model(x)
    loss = nn.functional.cross_entropy(logits, y)
    loss.backward()

    FOLDER.mkdir(exist_ok=True)
    save_file(model.state_dict(), FOLDER / "state_dict.safetensors", metadata={"format": "pt"})
    gradients = {f"grad/{name}": parameter.grad for name, parameter in model.named_parameters()}
    save_file({"x": x.detach(), "y": y, "logits": logits.detach(), "loss": loss.detach(), "grad/x": x.grad,
               **gradients}, FOLDER / "pass.safetensors", metadata={"torch": torch.__version__})


if __name__ == "__main__":
    main()
