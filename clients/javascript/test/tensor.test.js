/** What is taken for a tensor, and the 16-bit formats. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { decodeHalf, encodeHalf, tensor, toFloat32, toNested } from 'gradd';

test('nested arrays of numbers are F64, and lose nothing', () => {
  assert.deepEqual(tensor([[0.1, 2], [3, 16777217]]), {
    dtype: 'F64',
    shape: [2, 2],
    data: Float64Array.of(0.1, 2, 3, 16777217),
  });
  assert.deepEqual(tensor(7), { dtype: 'F64', shape: [], data: Float64Array.of(7) });
  assert.deepEqual(tensor([[], []]), { dtype: 'F64', shape: [2, 0], data: new Float64Array(0) });
});

test('bigints are I64 and booleans BOOL', () => {
  assert.deepEqual(tensor([2n ** 53n + 1n]).data, BigInt64Array.of(2n ** 53n + 1n));
  assert.deepEqual(tensor([true, false]), { dtype: 'BOOL', shape: [2], data: Uint8Array.of(1, 0) });
});

test('typed arrays are their own elements, and rows too', () => {
  const data = Float32Array.of(1, 2);
  assert.equal(tensor(data).data, data);
  assert.deepEqual(tensor(data).shape, [2]);
  assert.deepEqual(tensor([data, data]).shape, [2, 2]);
  assert.deepEqual(tensor(data, { shape: [2, 1] }), { dtype: 'F32', shape: [2, 1], data });
});

test('converts to another dtype, integers exactly or not at all', () => {
  assert.deepEqual(tensor([1, 2], { dtype: 'I64' }).data, BigInt64Array.of(1n, 2n));
  assert.deepEqual(tensor([0.1], { dtype: 'F32' }).data, Float32Array.of(0.1));
  assert.deepEqual(tensor(tensor([1n, 0n]), { dtype: 'BOOL' }).data, Uint8Array.of(1, 0));
  assert.deepEqual(tensor(tensor([1.5], { dtype: 'BF16' }), { dtype: 'F16' }).data, Uint16Array.of(0x3e00));
  for (const [value, dtype] of [
    [1.5, 'I64'], [1.5, 'I32'], [2 ** 31, 'I32'], [-(2 ** 31) - 1, 'I32'], [NaN, 'I32'],
    [256, 'U8'], [-1, 'U8'], [2, 'BOOL'],
  ]) assert.throws(() => tensor([value], { dtype }), RangeError, `${value} as ${dtype}`);
  assert.deepEqual(tensor([-(2 ** 31), 2 ** 31 - 1], { dtype: 'I32' }).data, Int32Array.of(-(2 ** 31), 2 ** 31 - 1));
});

test('refuses what is no tensor', () => {
  for (const given of [
    [[1, 2], [3]], [[1], 2], [1, [2]], [[1], [[2]]], ['1'], '1', null, undefined, {}, [null], [1, 2n], [1, true],
    Uint16Array.of(1), [Uint16Array.of(1)], new DataView(new ArrayBuffer(4)),
    { dtype: 'F32', shape: [2], data: Float64Array.of(1, 2) },
    { dtype: 'F32', shape: [3], data: Float32Array.of(1, 2) },
    { dtype: 'F32', shape: [-1, -2], data: Float32Array.of(1, 2) },
    { dtype: 'F32', data: Float32Array.of(1, 2) },
    { dtype: 'F8', shape: [1], data: Uint8Array.of(1) },
  ]) assert.throws(() => tensor(given), TypeError);
  assert.throws(() => tensor([1, 2], { shape: [3] }), TypeError);
  assert.throws(() => tensor([1, 2], { dtype: 'toString' }), TypeError);
});

test('gives the elements back', () => {
  const values = [[[1, 2], [3, 4]], [[5, 6], [7, 8]]];
  for (const dtype of ['F32', 'F64', 'F16', 'BF16', 'U8', 'I32']) {
    assert.deepEqual(toNested(tensor(values, { dtype })), values);
  }
  assert.deepEqual(toNested(tensor([[1n], [2n]])), [[1n], [2n]]);
  assert.equal(toNested(3), 3);
  assert.deepEqual(toFloat32(tensor([[1n, 2n]])), Float32Array.of(1, 2));
  const own = Float32Array.of(1);
  assert.equal(toFloat32(own), own);
});

/** Of each format: its largest number, its smallest, the first beyond, and bits of some. */
const HALVES = {
  F16: { largest: 65504, least: 2 ** -24, beyond: 65520, one: 0x3c00, infinity: 0x7c00 },
  BF16: {
    largest: (2 - 2 ** -7) * 2 ** 127,
    least: 2 ** -133,
    beyond: (2 - 2 ** -8) * 2 ** 127,
    one: 0x3f80,
    infinity: 0x7f80,
  },
};

for (const [dtype, { largest, least, beyond, one, infinity }] of Object.entries(HALVES)) {
  const encode = (x) => encodeHalf([x], dtype)[0];

  test(`${dtype}: every number comes back as the same bits`, () => {
    const bits = Uint16Array.from({ length: 65536 }, (_, i) => i);
    const again = encodeHalf(decodeHalf(bits, dtype), dtype);
    const isNaN = (i) => (i & 0x7fff) > infinity;
    assert.deepEqual(again.filter((_, i) => !isNaN(i)), bits.filter((_, i) => !isNaN(i)));
    assert.ok(again.every((b, i) => !isNaN(i) || isNaN(b)));
  });

  test(`${dtype}: between two numbers the nearer one is taken, in a tie the even one`, () => {
    const numbers = decodeHalf(Uint16Array.from({ length: infinity }, (_, i) => i), dtype);
    for (let i = 0; i + 1 < infinity; i++) {
      const middle = (numbers[i] + numbers[i + 1]) / 2;
      const off = (numbers[i + 1] - numbers[i]) * 2 ** -30;
      assert.equal(encode(middle), i + (i % 2), `the tie after ${numbers[i]}`);
      assert.equal(encode(middle - off), i);
      assert.equal(encode(middle + off), i + 1);
      assert.equal(encode(-middle), (i + (i % 2)) | 0x8000);
    }
  });

  test(`${dtype}: the ends of its range`, () => {
    assert.equal(encode(1), one);
    assert.equal(encode(largest), infinity - 1);
    assert.equal(encode(beyond), infinity);
    assert.equal(encode(beyond * (1 - 2 ** -52)), infinity - 1);
    assert.equal(encode(Number.MAX_VALUE), infinity);
    assert.equal(encode(-Infinity), infinity | 0x8000);
    assert.equal(encode(least), 1);
    assert.equal(encode(least / 2), 0);
    assert.equal(encode((least / 2) * (1 + 2 ** -52)), 1);
    assert.equal(encode(Number.MIN_VALUE), 0);
    assert.equal(encode(-0), 0x8000);
    assert.ok(Object.is(decodeHalf([0x8000], dtype)[0], -0));
    assert.ok(Number.isNaN(decodeHalf([encode(NaN)], dtype)[0]));
  });
}

test('only the two formats have 16 bits', () => {
  assert.throws(() => encodeHalf([1], 'F32'), TypeError);
  assert.throws(() => decodeHalf([1], 'F64'), TypeError);
});
