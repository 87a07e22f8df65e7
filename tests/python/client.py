"""The Python client, with numpy: every call, and arrays in both directions."""

import contextlib
import io
import re
import unittest

import numpy
import safetensors.numpy
from support import ROOT, Daemon, main
from support.calls import LINE, Calls, Files, lists

import gradd

__all__ = ["Calls", "Files"]


class Arrays(unittest.TestCase):
    def test_arrays_of_every_kind(self):
        big_endian = numpy.array([[1, 2], [3, 4]], ">f4")
        strided = numpy.arange(8, dtype="f4").reshape(2, 4)[:, ::2]
        arrays = [big_endian, strided, strided.T, numpy.float16(2.5), numpy.array(3), numpy.array([True])]
        arrays += [
            numpy.array([1, 2], code) for code in ("i1", "u2", "i2", "u1", "u4", "i4", "i8", "f2", "f8")
        ]
        for array in arrays:
            with self.subTest(array=array):
                read = gradd.unpack(gradd.pack({"a": array}))[0]["a"]
                numpy.testing.assert_array_equal(read, array)
        for wrong in (numpy.array([1j]), numpy.array(["a"]), numpy.array([1], "u8")):
            with self.subTest(wrong=wrong), self.assertRaises(TypeError):
                gradd.pack({"a": wrong})

    def test_files_of_the_safetensors_package(self):
        tensors = {
            "w": numpy.arange(6, dtype="f4").reshape(2, 3),
            "half": numpy.ones(3, "f2"),
            "n": numpy.array(3),
        }
        read, metadata = gradd.unpack(safetensors.numpy.save(tensors, {"k": "v"}))
        self.assertEqual(metadata, {"k": "v"})
        back = safetensors.numpy.load(gradd.pack(tensors, metadata))
        for name, value in tensors.items():
            numpy.testing.assert_array_equal(read[name], value)
            numpy.testing.assert_array_equal(back[name], value)

    def test_answers_are_aligned_and_may_be_written_to(self):
        with Daemon() as daemon, gradd.Client(daemon.url) as client:
            client.create(LINE)
            for _ in range(2):
                weight = client.parameters("line")["parameters"]["0.weight"]
                self.assertTrue(weight.flags.writeable and weight.flags.aligned)
                self.assertNotEqual(lists(weight), [[7.0, 7.0]])
                weight[:] = 7

    def test_what_the_readme_says(self):
        page = (ROOT / "clients" / "python" / "README.md").read_text()
        blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
        first, second = blocks[0], next(block for block in blocks if "except" in block)
        with Daemon() as daemon, contextlib.redirect_stdout(io.StringIO()) as said:
            names = {}
            exec(first.replace("http://127.0.0.1:8080", daemon.url), names)
            exec(second, names)
            names["client"].close()
        loss, problem = said.getvalue().splitlines()[0].split()[0], said.getvalue().splitlines()[-1]
        self.assertLess(float(loss), 0.01)
        self.assertIn(problem, page)


if __name__ == "__main__":
    main()
