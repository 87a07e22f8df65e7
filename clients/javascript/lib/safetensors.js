/**
 * The safetensors format: 8 bytes, little-endian, that tell the size of a JSON header; the header, which
 * says of each tensor its dtype, its shape and where its bytes are; and the bytes, without a gap.
 */
import { arrayOf, isShape, sizeOf, tensor } from './tensor.js';

const PREFIX = 8;
const METADATA = '__metadata__';

if (new Uint8Array(Uint16Array.of(1).buffer)[0] !== 1) {
  throw new Error('gradd: the bytes of tensors are little-endian, and those of this machine are not');
}

function bytesOf({ buffer, byteOffset, byteLength }) {
  return new Uint8Array(buffer, byteOffset, byteLength);
}

/** How the format's reference writer sorts: wide elements come first, so that all are aligned; then by name. */
const ORDER = ['I64', 'F64', 'F32', 'I32', 'BF16', 'F16', 'U8', 'BOOL'];

function byDtypeAndName([a, { dtype: aType }], [b, { dtype: bType }]) {
  return ORDER.indexOf(aType) - ORDER.indexOf(bType) || (a < b ? -1 : 1);
}

/**
 * A file of `tensors` ({ name: tensor }) and `metadata` ({ name: string }), as a Uint8Array: the bytes that
 * the reference writer makes of them. Spaces after the header let the data begin at a multiple of 8.
 */
export function writeSafetensors(tensors, metadata = {}) {
  const entries = Object.entries(tensors).map(([name, given]) => [name, tensor(given)]);
  entries.sort(byDtypeAndName);
  const header = Object.keys(metadata).length ? [[METADATA, metadata]] : [];
  let end = 0;
  for (const [name, { dtype, shape, data }] of entries) {
    header.push([name, { dtype, shape, data_offsets: [end, (end += data.byteLength)] }]);
  }
  const text = new TextEncoder().encode(JSON.stringify(Object.fromEntries(header)));
  const start = Math.ceil((PREFIX + text.length) / 8) * 8;
  const file = new Uint8Array(start + end);
  new DataView(file.buffer).setBigUint64(0, BigInt(start - PREFIX), true);
  file.fill(0x20, PREFIX, start).set(text, PREFIX);
  let at = start;
  for (const [, { data }] of entries) {
    file.set(bytesOf(data), at);
    at += data.byteLength;
  }
  return file;
}

function fail(why) {
  throw new Error(`not a safetensors file: ${why}`);
}

function readHeader(file) {
  if (file.length < PREFIX) fail('it ends before its header');
  const size = new DataView(file.buffer, file.byteOffset).getBigUint64(0, true);
  if (size > BigInt(file.length - PREFIX)) fail('its header is longer than the file');
  const text = new TextDecoder('utf-8', { fatal: true }).decode(file.subarray(PREFIX, PREFIX + Number(size)));
  return { header: JSON.parse(text), data: file.subarray(PREFIX + Number(size)) };
}

/** The typed array of an entry: onto the file's own bytes where they are aligned, otherwise a copy. */
function readTensor(name, { dtype, shape, data_offsets: [begin, end] }, data) {
  const array = arrayOf(dtype);
  if (!isShape(shape)) fail(`the shape of "${name}" is none`);
  if (end - begin !== sizeOf(shape) * array.BYTES_PER_ELEMENT) fail(`"${name}" has not the bytes of its shape`);
  const aligned = (data.byteOffset + begin) % array.BYTES_PER_ELEMENT === 0;
  const { buffer, byteOffset } = aligned ? data.subarray(begin, end) : data.slice(begin, end);
  return { dtype, shape, data: new array(buffer, byteOffset, sizeOf(shape)) };
}

/** Begin first, then end: an empty tensor stands before the one that begins where it does. */
function byOffset([, { data_offsets: [a, aEnd] }], [, { data_offsets: [b, bEnd] }]) {
  return a - b || aEnd - bEnd;
}

/** { tensors, metadata } of a file's bytes, which the tensors go on using. Throws if it is none. */
export function readSafetensors(file) {
  const { header, data } = readHeader(bytesOf(ArrayBuffer.isView(file) ? file : new Uint8Array(file)));
  const { [METADATA]: metadata = {}, ...entries } = header;
  let at = 0;
  const inOrder = Object.entries(entries).sort(byOffset);
  for (const [name, { data_offsets: [begin, end] }] of inOrder) {
    if (begin !== at || !(end >= begin)) fail(`"${name}" overlaps another tensor, or leaves a gap`);
    at = end;
  }
  if (at !== data.length) fail('its tensors are not all of its data');
  const tensors = Object.entries(entries).map(([name, entry]) => [name, readTensor(name, entry, data)]);
  return { tensors: Object.fromEntries(tensors), metadata };
}
