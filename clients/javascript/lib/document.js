/**
 * The documents of the API as safetensors. A tensor in a map of the document is named by its path
 * ("inputs/x"); every other member is a text in the metadata, a string as it is, the rest as JSON.
 */
import { checkNames, checkObject, checkTensors, named } from './check.js';
import { readSafetensors, writeSafetensors } from './safetensors.js';
import { tensor } from './tensor.js';

/** The members of requests that are maps of tensors. */
const MAPS = new Set(['inputs', 'targets', 'upstream', 'parameters', 'gradients', 'buffers', 'state']);

/** The members of requests that are lists of names. */
const NAMES = new Set(['outputs', 'return']);

/** The members of answers that are strings, and so need no JSON to be read. */
const STRINGS = new Set(['model', 'incarnation', 'context', 'op', 'worker']);

export function hasTensors(document) {
  return Object.keys(document ?? {}).some((member) => MAPS.has(member));
}

/** Tensors by their names, each as a tensor. */
export function namedTensors(argument, given) {
  return Object.entries(checkTensors(argument, given)).map(([name, values]) => [
    name,
    named(`${argument}[${JSON.stringify(name)}]`, () => tensor(values)),
  ]);
}

export function encodeDocument(document, argument = 'the request') {
  const tensors = [];
  const metadata = [];
  for (const [member, value] of Object.entries(checkObject(argument, document, "{ model: 'name' }"))) {
    if (value === undefined) continue;
    if (NAMES.has(member)) checkNames(member, value);
    if (MAPS.has(member)) {
      for (const [name, of] of namedTensors(member, value)) tensors.push([`${member}/${name}`, of]);
    } else {
      metadata.push([member, typeof value === 'string' ? value : JSON.stringify(value)]);
    }
  }
  return writeSafetensors(Object.fromEntries(tensors), Object.fromEntries(metadata));
}

/** A member that is not known yet may be a string, too. */
function decodeMember(member, text) {
  if (STRINGS.has(member)) return text;
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** The members of a file's metadata. */
export function decodeMetadata(metadata) {
  return Object.fromEntries(
    Object.entries(metadata).map(([member, text]) => [member, decodeMember(member, text)]),
  );
}

/** The document in a file; a map without tensors is not in it. */
export function decodeDocument(file) {
  const { tensors, metadata } = readSafetensors(file);
  const maps = new Map();
  for (const [path, tensor] of Object.entries(tensors)) {
    const slash = path.indexOf('/');
    const member = path.slice(0, slash);
    if (!maps.has(member)) maps.set(member, []);
    maps.get(member).push([path.slice(slash + 1), tensor]);
  }
  const document = decodeMetadata(metadata);
  for (const [member, entries] of maps) document[member] = Object.fromEntries(entries);
  return document;
}
