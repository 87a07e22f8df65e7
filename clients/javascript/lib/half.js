/**
 * The 16-bit floating-point formats. JavaScript has no arrays of them, so tensors keep their bits in a
 * Uint16Array. Both are IEEE 754 in shape: sign, biased exponent, fraction; subnormals, infinities, NaN.
 */

const FORMATS = {
  F16: { exponent: 5, fraction: 10 },
  BF16: { exponent: 8, fraction: 7 },
};

const words = new Uint32Array(2);
const double = new Float64Array(words.buffer);

/** floor(log2(x)) of a normal double above zero. */
function exponentOf(x) {
  double[0] = x;
  return (words[1] >>> 20) - 1023;
}

/** The nearest integer, ties to even. */
function roundEven(x) {
  const down = Math.floor(x);
  const rest = x - down;
  return rest > 0.5 || (rest === 0.5 && down % 2 === 1) ? down + 1 : down;
}

/** The bits of the number of the format that is nearest to x, ties to even: rounded once, from double. */
function toBits(x, { exponent, fraction }) {
  const bias = 2 ** (exponent - 1) - 1;
  const infinity = (2 ** exponent - 1) << fraction;
  const sign = x < 0 || Object.is(x, -0) ? 1 << (exponent + fraction) : 0;
  const size = Math.abs(x);
  if (Number.isNaN(x)) return infinity | (1 << (fraction - 1));
  if (size >= 2 ** (bias + 1)) return sign | infinity;
  if (size < 2 ** (1 - bias)) return sign | roundEven(size * 2 ** (bias - 1 + fraction));
  const e = exponentOf(size);
  // Rounding up to the next power of two carries into the exponent, and from the largest to infinity.
  return sign | (((e + bias - 1) << fraction) + roundEven(size * 2 ** (fraction - e)));
}

function fromBits(bits, { exponent, fraction }) {
  const bias = 2 ** (exponent - 1) - 1;
  const sign = bits >> (exponent + fraction) ? -1 : 1;
  const e = (bits >> fraction) & (2 ** exponent - 1);
  const f = bits & (2 ** fraction - 1);
  if (e === 2 ** exponent - 1) return f ? NaN : sign * Infinity;
  if (e === 0) return sign * f * 2 ** (1 - bias - fraction);
  return sign * (f + 2 ** fraction) * 2 ** (e - bias - fraction);
}

function formatOf(dtype) {
  const format = FORMATS[dtype];
  if (!format) throw new TypeError(`F16 and BF16 have 16 bits, "${dtype}" has not`);
  return format;
}

/** Numbers as the bits of F16 or BF16, each the nearest there is. */
export function encodeHalf(numbers, dtype) {
  const format = formatOf(dtype);
  return Uint16Array.from(numbers, (x) => toBits(x, format));
}

const decoded = {};

/** The bits of F16 or BF16 as float32 numbers, exactly. */
export function decodeHalf(bits, dtype) {
  const format = formatOf(dtype);
  decoded[dtype] ??= Float32Array.from({ length: 65536 }, (_, i) => fromBits(i, format));
  const table = decoded[dtype];
  return Float32Array.from(bits, (i) => table[i]);
}
