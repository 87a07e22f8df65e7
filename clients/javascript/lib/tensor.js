/**
 * Tensors: { dtype, shape, data }, the elements in row-major order in the typed array of their dtype.
 * Wherever the client takes one, it also takes a nested array, a typed array (of one dimension) or a
 * number (of none).
 */
import { decodeHalf, encodeHalf } from './half.js';

/** Of each dtype the array that holds it; F16 and BF16 as bits, BOOL as 0 and 1. */
export const ARRAYS = {
  F32: Float32Array,
  F64: Float64Array,
  F16: Uint16Array,
  BF16: Uint16Array,
  U8: Uint8Array,
  I32: Int32Array,
  I64: BigInt64Array,
  BOOL: Uint8Array,
};

/** What a typed array alone says of its dtype: a Uint16Array could be either half, so nothing. */
const DTYPES = [
  [Float32Array, 'F32'],
  [Float64Array, 'F64'],
  [Uint8Array, 'U8'],
  [Uint8ClampedArray, 'U8'],
  [Int32Array, 'I32'],
  [BigInt64Array, 'I64'],
];

export function arrayOf(dtype) {
  if (!Object.hasOwn(ARRAYS, dtype)) {
    throw new TypeError(`dtype is one of ${Object.keys(ARRAYS).join(', ')}, not "${dtype}"`);
  }
  return ARRAYS[dtype];
}

export function isShape(shape) {
  return Array.isArray(shape) && shape.every((length) => Number.isSafeInteger(length) && length >= 0);
}

export function sizeOf(shape) {
  return shape.reduce((product, length) => product * length, 1);
}

function dtypeOf(array) {
  return DTYPES.find(([type]) => array instanceof type)?.[1];
}

function isRow(value) {
  return Array.isArray(value) || dtypeOf(value) !== undefined;
}

function shapeOf(nested) {
  const shape = [];
  for (let level = nested; isRow(level); level = level[0]) shape.push(level.length);
  return shape;
}

/** Puts the leaves of `nested` into `flat`, and sees to it that all rows are of one length. */
function flatten(nested, shape, depth, flat) {
  if (isRow(nested) !== depth < shape.length || (isRow(nested) && nested.length !== shape[depth])) {
    throw new TypeError(`a ragged array: not all rows are of the shape [${shape}]`);
  }
  if (isRow(nested)) for (const row of nested) flatten(row, shape, depth + 1, flat);
  else flat.push(nested);
}

const DTYPE_OF_KIND = { number: 'F64', bigint: 'I64', boolean: 'BOOL' };

/** What the elements are when nobody says: numbers are doubles, and as such lose nothing on the way. */
function dtypeOfElements(elements) {
  const kinds = new Set();
  for (const element of elements) kinds.add(typeof element);
  const [kind = 'number'] = kinds;
  if (kinds.size > 1 || !Object.hasOwn(DTYPE_OF_KIND, kind)) {
    const found = [...kinds].join(' and ');
    throw new TypeError(`a tensor's elements are all numbers, all bigint or all boolean, not ${found}`);
  }
  return DTYPE_OF_KIND[kind];
}

/** An element as the dtypes of integers take it: exactly, or not at all. */
const toElement = {
  I64: BigInt,
  I32: (x) => exactly(x, Number.isInteger(Number(x)) && Math.abs(Number(x) + 0.5) < 2 ** 31),
  U8: (x) => exactly(x, Number.isInteger(Number(x)) && Number(x) >= 0 && Number(x) < 256),
  BOOL: (x) => exactly(x, Number(x) === 0 || Number(x) === 1),
};

function exactly(x, holds) {
  if (!holds) throw new RangeError(`${x} is not an element of this dtype`);
  return Number(x);
}

function convert(elements, dtype) {
  if (dtype === 'F16' || dtype === 'BF16') return encodeHalf(Array.from(elements, Number), dtype);
  return arrayOf(dtype).from(elements, toElement[dtype] ?? Number);
}

function checked(given) {
  const { dtype, shape, data } = given;
  const array = arrayOf(dtype);
  if (!(data instanceof array) && !(array === Uint8Array && data instanceof Uint8ClampedArray)) {
    throw new TypeError(`the data of ${dtype} is a ${array.name}`);
  }
  if (!isShape(shape)) throw new TypeError(`a shape is an array of whole numbers, not ${JSON.stringify(shape)}`);
  if (data.length !== sizeOf(shape)) {
    throw new TypeError(`${data.length} elements are not of the shape [${shape}]`);
  }
  return given;
}

/** The number of a half's bits, and any other element as it is. */
function numbersOf({ dtype, data }) {
  return dtype === 'F16' || dtype === 'BF16' ? decodeHalf(data, dtype) : data;
}

/**
 * A tensor of what is given: { dtype, shape, data }, a nested or typed array, or a number. With `dtype`
 * its elements are converted, integers exactly or not at all; with `shape` it gets that shape.
 */
export function tensor(given, { dtype, shape } = {}) {
  let made;
  if (given?.data !== undefined) {
    made = checked(given);
  } else if (dtypeOf(given)) {
    made = { dtype: dtypeOf(given), shape: [given.length], data: given };
  } else {
    const found = shapeOf(given);
    const elements = [];
    flatten(given, found, 0, elements);
    const own = dtypeOfElements(elements);
    made = { dtype: own, shape: found, data: convert(elements, own) };
  }
  if (dtype && dtype !== made.dtype) made = { dtype, shape: made.shape, data: convert(numbersOf(made), dtype) };
  return shape ? checked({ ...made, shape }) : made;
}

/** The elements as a Float32Array: the tensor's own if it is one, otherwise converted, the nearest there is. */
export function toFloat32(given) {
  const of = tensor(given);
  const numbers = numbersOf(of);
  return numbers instanceof Float32Array ? numbers : Float32Array.from(numbers, Number);
}

/** The elements as nested arrays of numbers (I64: of bigints); a tensor of no dimensions is its element. */
export function toNested(given) {
  const of = tensor(given);
  const numbers = numbersOf(of);
  let at = 0;
  const nest = (depth) =>
    depth === of.shape.length
      ? numbers[at++]
      : Array.from({ length: of.shape[depth] }, () => nest(depth + 1));
  return nest(0);
}
