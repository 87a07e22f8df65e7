"""A client of gradd, the gradient service: its calls as methods, tensors as arrays, retries built in.

    import gradd

    with gradd.Client("http://127.0.0.1:8080") as client:
        client.create({"name": "line", "inputs": {"x": {"shape": [2]}},
                       "layers": [{"op": "linear", "out_features": 1}],
                       "loss": {"op": "mse"}, "optimizer": {"op": "sgd", "lr": 0.1}})
        answer = client.backward("line", {"x": [[1, 2]]}, targets={"y": [[5]]}, apply=True)
        print(answer["loss"], answer["applied_version"])

It needs the standard library alone. Where numpy is installed, tensors in answers are its arrays, elsewhere
nested lists. `gradd.torch` makes a remote model a layer of a local PyTorch one.
"""

from ._client import Client
from ._document import Answer, etag, pack, unpack
from ._requests import __version__
from ._tensor import Tensor, bfloat16
from ._transport import GraddError

__all__ = ["Answer", "Client", "GraddError", "Tensor", "__version__", "bfloat16", "etag", "pack", "unpack"]
