#!/usr/bin/env python3
"""Parameters between the service and the safetensors package: what either writes, the other reads.

The daemon is what GRADD names. Prints TAP, as tests/run reads it."""
import contextlib
import json
import os
import subprocess
import sys
import traceback
import urllib.error
import urllib.request

import numpy as np
from safetensors.numpy import load, save

FILE, JSON = "application/safetensors", "application/json"
SPECIFICATION = {
    "name": "m", "seed": 3, "inputs": {"x": {"shape": [5]}},
    "layers": [{"op": "linear", "out_features": 7}, {"op": "tanh"},
               {"op": "linear", "out_features": 3, "name": "out"}],
    "loss": {"op": "mse"}, "optimizer": {"op": "adam", "lr": 0.01},
}
SHAPES = {"0.weight": (7, 5), "0.bias": (7,), "out.weight": (3, 7), "out.bias": (3,)}


@contextlib.contextmanager
def daemon():
    """The address of a daemon that ends with the block, and has to end well."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GRADD_")}
    with subprocess.Popen([os.environ.get("GRADD", "build/gradd"), "--listen", "127.0.0.1:0", "--log", "off"],
                          stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            line = process.stdout.readline()
            assert line.startswith("listening on http://"), line
            yield line.split()[-1]
            process.terminate()
            assert process.wait(60) == 0
        finally:
            process.kill()


def call(url, method, path, body=None, kind=JSON, accept=None):
    """The answer's bytes; raises unless the status is 2xx."""
    headers = {"Content-Type": kind} if body is not None else {}
    if accept:
        headers["Accept"] = accept
    request = urllib.request.Request(url + path, data=body, headers=headers, method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=60) as answer:
        return answer.read()


def tensors_of(answer, member):
    return {name: np.array(values, np.float32) for name, values in json.loads(answer)[member].items()}


def same(one, other):
    assert one.keys() == other.keys(), (one.keys(), other.keys())
    for name, values in one.items():
        assert values.shape == other[name].shape, name
        assert values.dtype == other[name].dtype, name
        assert np.array_equal(values, other[name]), name


def the_package_reads_parameters(url):
    tensors = load(call(url, "GET", "/models/m/parameters", accept=FILE))
    assert {name: values.shape for name, values in tensors.items()} == SHAPES
    same(tensors, tensors_of(call(url, "GET", "/models/m/parameters"), "parameters"))
    bound = 1 / np.sqrt(5)
    assert 0 < np.abs(tensors["0.weight"]).max() <= bound


def the_package_reads_other_types(url):
    single = load(call(url, "GET", "/models/m/parameters", accept=FILE))
    for name, dtype in ("F64", np.float64), ("F16", np.float16):
        tensors = load(call(url, "GET", f"/models/m/parameters?dtype={name}", accept=FILE))
        same(tensors, {key: values.astype(dtype) for key, values in single.items()})


def the_service_reads_what_the_package_saves(url):
    rng = np.random.default_rng(1)
    for dtype in np.float32, np.float64, np.float16:
        tensors = {name: rng.standard_normal(shape).astype(dtype) for name, shape in SHAPES.items()}
        call(url, "PUT", "/models/m/parameters", save(tensors, metadata={"format": "pt"}), FILE)
        back = load(call(url, "GET", "/models/m/parameters", accept=FILE))
        same(back, {name: values.astype(np.float32) for name, values in tensors.items()})
        x = rng.standard_normal((4, 5)).astype(np.float32)
        body = save({"inputs/x": x}, metadata={"model": "m"})
        answer = load(call(url, "POST", "/forward", body, FILE))
        hidden = np.tanh(x @ back["0.weight"].T + back["0.bias"])
        expected = hidden @ back["out.weight"].T + back["out.bias"]
        assert np.allclose(answer["outputs/out"], expected, rtol=1e-5, atol=1e-6)


def a_part_of_them(url):
    before = load(call(url, "GET", "/models/m/parameters", accept=FILE))
    part = {"out.bias": np.array([1, 2, 3], np.float32)}
    call(url, "PUT", "/models/m/parameters?partial=true", save(part), FILE)
    same(load(call(url, "GET", "/models/m/parameters", accept=FILE)), {**before, **part})
    try:
        call(url, "PUT", "/models/m/parameters", save(part), FILE)
    except urllib.error.HTTPError as error:
        problem = json.loads(error.read())
        assert error.code == 422 and problem["type"] == "urn:gradd:problem:invalid-value", problem
    else:
        raise AssertionError("a part was taken for the whole")


def the_package_reads_the_optimizer(url):
    body = save({"inputs/x": np.ones((2, 5), np.float32), "targets/y": np.zeros((2, 3), np.float32)},
                metadata={"model": "m", "apply": "true"})
    call(url, "POST", "/backward", body, FILE)
    state = load(call(url, "GET", "/models/m/optimizer", accept=FILE))
    assert state["state/exp_avg.0.weight"].shape == (7, 5)
    assert len(state) == 2 * len(SHAPES)


def main():
    tests = [the_package_reads_parameters, the_package_reads_other_types,
             the_service_reads_what_the_package_saves, a_part_of_them, the_package_reads_the_optimizer]
    failed = 0
    print(f"1..{len(tests) + 1}")
    try:
        with daemon() as url:
            call(url, "POST", "/models", json.dumps(SPECIFICATION).encode())
            for number, test in enumerate(tests, 1):
                try:
                    test(url)
                    print(f"ok {number} - {test.__name__}")
                except Exception:
                    failed += 1
                    print(f"not ok {number} - {test.__name__}")
                    traceback.print_exc(file=sys.stdout)
        print(f"ok {len(tests) + 1} - the_daemon_ends_well")
    except Exception:
        failed += 1
        print(f"not ok {len(tests) + 1} - the_daemon_ends_well")
        traceback.print_exc(file=sys.stdout)
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
