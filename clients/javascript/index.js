/** The client for browsers, and all that node.js re-exports. */
export { Client } from './lib/client.js';
export { GraddError } from './lib/error.js';
export { decodeHalf, encodeHalf } from './lib/half.js';
export { readSafetensors, writeSafetensors } from './lib/safetensors.js';
export { tensor, toFloat32, toNested } from './lib/tensor.js';
