"""The step in PyTorch, in this process. Usage: torch_step.py ROWS

Reads a count from standard input, takes so many steps, prints how many seconds they took."""
import sys
import time

import torch

rows = int(sys.argv[1])
torch.manual_seed(1)
model = torch.nn.Sequential(
    torch.nn.Linear(784, 512), torch.nn.ReLU(),
    torch.nn.Linear(512, 512), torch.nn.ReLU(),
    torch.nn.Linear(512, 10))
loss_of = torch.nn.CrossEntropyLoss()
optimizer = torch.optim.SGD(model.parameters(), lr=0.001)
x = torch.rand(rows, 784)
y = torch.arange(rows) % 10


def step():
    optimizer.zero_grad(set_to_none=True)
    loss_of(model(x), y).backward()
    optimizer.step()


for line in sys.stdin:
    begin = time.perf_counter()
    for _ in range(int(line)):
        step()
    print(f"{time.perf_counter() - begin:.9f}", flush=True)
