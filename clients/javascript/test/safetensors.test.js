/** The codec against files of the format's reference package, and against files that are none. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';

import { readSafetensors, tensor, toNested, writeSafetensors } from 'gradd';

const reference = await readFile(new URL('fixtures/python.safetensors', import.meta.url));

/** What fixtures/make_python.py put in. */
const MADE = {
  f32: tensor([[1.5, -2, 0.1], [Infinity, -Infinity, 3e-45]], { dtype: 'F32' }),
  f64: tensor([0.1, -1e300]),
  f16: tensor([1, -2, 65504, 6e-8, 0.1], { dtype: 'F16' }),
  bf16: tensor([1, -2, 3e38, 1e-40, 0.1], { dtype: 'BF16' }),
  u8: tensor(Uint8Array.of(0, 7, 255)),
  i32: tensor([[-(2 ** 31)], [2 ** 31 - 1]], { dtype: 'I32' }),
  i64: tensor([-(2n ** 63n), 2n ** 63n - 1n, 42n]),
  bool: tensor([true, false, true]),
  scalar: tensor(2.5, { dtype: 'F32' }),
  empty: tensor(new Float32Array(0), { shape: [0, 3] }),
};

function file(header, data = []) {
  const text = new TextEncoder().encode(typeof header === 'string' ? header : JSON.stringify(header));
  const size = new Uint8Array(BigUint64Array.of(BigInt(text.length)).buffer);
  return Uint8Array.of(...size, ...text, ...data);
}

test('reads what the reference package wrote', () => {
  const { tensors, metadata } = readSafetensors(reference);
  assert.deepEqual(tensors, MADE);
  assert.deepEqual(metadata, { größe: 'ü' });
});

test('writes the bytes that the reference package writes', () => {
  assert.deepEqual(Buffer.from(writeSafetensors(MADE, { größe: 'ü' })), reference);
});

test('reads at any alignment, without a copy where it can', () => {
  const sorted = (tensors) => Object.entries(tensors).sort();
  for (let shift = 0; shift < 8; shift++) {
    const moved = new Uint8Array(reference.length + shift);
    moved.set(reference, shift);
    const { tensors } = readSafetensors(moved.subarray(shift));
    assert.deepEqual(sorted(tensors), sorted(MADE));
    assert.equal(tensors.f64.data.buffer === moved.buffer, shift === 0);
  }
});

test('keeps any name apart, those of Object.prototype too', () => {
  const names = ['__proto__', 'constructor', 'toString', '0', 'größe'];
  const tensors = Object.fromEntries(names.map((name, i) => [name, tensor([i])]));
  const read = readSafetensors(writeSafetensors(tensors)).tensors;
  assert.deepEqual(Object.keys(read).sort(), [...names].sort());
  for (const [i, name] of names.entries()) assert.deepEqual(toNested(read[name]), [i]);
});

test('reads a tensor that is a part of a larger array, and writes no more than it', () => {
  const part = new Float32Array([1, 2, 3, 4]).subarray(1, 3);
  assert.deepEqual(toNested(readSafetensors(writeSafetensors({ part })).tensors.part), [2, 3]);
});

const u8 = (begin, end) => ({ dtype: 'U8', shape: [end - begin], data_offsets: [begin, end] });
const BROKEN = {
  'nothing': new Uint8Array(0),
  'less than a size': new Uint8Array(7),
  'a header beyond the end': Uint8Array.of(255, 255, 255, 255, 255, 255, 255, 255, 123, 125),
  'a header that is no JSON': file('{'),
  'a header that is no object': file('null'),
  'a header that is not UTF-8': Uint8Array.of(1, 0, 0, 0, 0, 0, 0, 0, 0xff),
  'an entry without offsets': file({ a: { dtype: 'U8', shape: [1] } }, [1]),
  'an unknown dtype': file({ a: { ...u8(0, 1), dtype: 'U9' } }, [1]),
  'a dtype of Object.prototype': file({ a: { ...u8(0, 1), dtype: 'constructor' } }, [1]),
  'missing data': file({ a: u8(0, 2) }, [1]),
  'data left over': file({ a: u8(0, 1) }, [1, 2]),
  'an overlap': file({ a: u8(0, 2), b: u8(1, 3) }, [1, 2, 3]),
  'a gap': file({ a: u8(0, 1), b: u8(2, 3) }, [1, 2, 3]),
  'an end before the beginning': file({ a: { ...u8(0, 1), data_offsets: [0, -1] } }, [1]),
  'another shape than its bytes': file({ a: { ...u8(0, 2), shape: [3] } }, [1, 2]),
  'a negative shape': file({ a: { ...u8(0, 2), shape: [-1, -2] } }, [1, 2]),
};
for (const [what, bytes] of Object.entries(BROKEN)) {
  test(`refuses ${what}`, () => assert.throws(() => readSafetensors(bytes), Error));
}
