/** The calls of gradd. Members of requests and answers are those of docs/api.md, tensors as in tensor.js. */
import { AnswerCache } from './cache.js';
import { decodeDocument, decodeMetadata, encodeDocument } from './document.js';
import { GraddError } from './error.js';
import { newKey } from './key.js';
import { readSafetensors, writeSafetensors } from './safetensors.js';
import { send } from './transport.js';

const JSON_TYPE = 'application/json';
const SAFETENSORS_TYPE = 'application/safetensors';

/** What a backward may have answered that is of no use to who pushes its gradients. */
const NOT_PUSHED = ['outputs', 'input_gradients', 'node_gradients'];

/** An entity tag of what If-Match is to be: one already, or anything with an incarnation and a version. */
function tagOf(condition) {
  return typeof condition === 'string' ? condition : `"${condition.incarnation}-${condition.version}"`;
}

function pathOf(model, part = '') {
  return `/models/${encodeURIComponent(model)}${part}`;
}

function readJson({ bytes }) {
  return JSON.parse(new TextDecoder().decode(bytes));
}

export class Client {
  #url;
  #token;
  #defaults;
  #fetch;
  #pulled;

  constructor({ url, token, timeoutMs = 120_000, retries = 6, cacheBytes = 256 * 2 ** 20, fetch }) {
    this.#url = new URL(url).href.replace(/\/+$/, '');
    this.#token = token;
    this.#defaults = { timeoutMs, retries };
    this.#fetch = fetch ?? ((...given) => globalThis.fetch(...given));
    this.#pulled = new AnswerCache(cacheBytes);
  }

  /**
   * One call. `json` or `file` is the body; `answer` the type of what is to come back; `changes` says that
   * the call changes something, so that its attempts must count once.
   */
  async #call(method, path, { query = {}, json, file, answer = JSON_TYPE, changes, etag }, options = {}) {
    const headers = new Headers({ accept: answer });
    if (this.#token !== undefined) headers.set('authorization', `Bearer ${this.#token}`);
    if (json || file) headers.set('content-type', json ? JSON_TYPE : SAFETENSORS_TYPE);
    if (changes) headers.set('idempotency-key', options.idempotencyKey ?? newKey());
    if (options.ifMatch !== undefined) headers.set('if-match', tagOf(options.ifMatch));
    if (etag) headers.set('if-none-match', etag);
    const asked = new URLSearchParams(Object.entries(query).filter(([, value]) => value !== undefined)).toString();
    const url = `${this.#url}${path}${asked && `?${asked}`}`;
    const { signal, timeoutMs = this.#defaults.timeoutMs, retries = this.#defaults.retries } = options;
    const request = { method, headers, body: json ? JSON.stringify(json) : file };
    return send(this.#fetch, url, request, { signal, timeoutMs, retries });
  }

  async #json(...call) {
    return readJson(await this.#call(...call));
  }

  async #document(method, path, call, options) {
    const { bytes } = await this.#call(method, path, { ...call, answer: SAFETENSORS_TYPE }, options);
    return decodeDocument(bytes);
  }

  // --- models

  create(specification, options) {
    return this.#json('POST', '/models', { json: specification, changes: true }, options);
  }

  async models(options) {
    return (await this.#json('GET', '/models', {}, options)).models;
  }

  describe(model, options) {
    return this.#json('GET', pathOf(model), {}, options);
  }

  patch(model, change, options) {
    return this.#json('PATCH', pathOf(model), { json: change, changes: true }, options);
  }

  delete(model, options) {
    return this.#json('DELETE', pathOf(model), { changes: true }, options);
  }

  // --- passes

  forward(request, options) {
    return this.#document('POST', '/forward', { file: encodeDocument(request) }, options);
  }

  backward(request, options) {
    const changes = Boolean(request.apply || request.accumulate);
    return this.#document('POST', '/backward', { file: encodeDocument(request), changes }, options);
  }

  step(request, options) {
    return this.#json('POST', '/step', { json: request, changes: true }, options);
  }

  // --- parameters

  /** What was pulled before comes again as a copy while it stands: nobody's changes show in another's. */
  async parameters(model, { names, dtype, ...options } = {}) {
    const query = { names: names?.join(','), dtype };
    const key = JSON.stringify([model, query]);
    const kept = this.#pulled.get(key);
    const call = { query, answer: SAFETENSORS_TYPE, etag: kept?.etag };
    const { status, headers, bytes } = await this.#call('GET', pathOf(model, '/parameters'), call, options);
    const etag = headers.get('etag');
    const file = status === 304 ? kept.bytes : bytes;
    if (etag) this.#pulled.set(key, etag, file);
    const { tensors, metadata } = readSafetensors(file.slice());
    return { ...decodeMetadata(metadata), parameters: tensors };
  }

  setParameters(model, parameters, { partial, ...options } = {}) {
    const call = { query: { partial: partial || undefined }, file: writeSafetensors(parameters), changes: true };
    return this.#json('PUT', pathOf(model, '/parameters'), call, options);
  }

  blend(model, request, options) {
    return this.#json('POST', pathOf(model, '/parameters'), { json: request, changes: true }, options);
  }

  // --- gradients

  push(model, contribution, options) {
    const sent = Object.entries(contribution).filter(([member]) => !NOT_PUSHED.includes(member));
    const call = { file: encodeDocument(Object.fromEntries(sent)), changes: true };
    return this.#json('POST', pathOf(model, '/gradients'), call, options);
  }

  gradients(model, { dtype, ...options } = {}) {
    return this.#document('GET', pathOf(model, '/gradients'), { query: { dtype } }, options);
  }

  clearGradients(model, options) {
    return this.#json('DELETE', pathOf(model, '/gradients'), { changes: true }, options);
  }

  // --- the optimizer's state

  /** Where the optimizer keeps nothing but its count, no tensor tells of a state. */
  async optimizer(model, { dtype, ...options } = {}) {
    const answer = await this.#document('GET', pathOf(model, '/optimizer'), { query: { dtype } }, options);
    return { state: {}, ...answer };
  }

  setOptimizer(model, state, options) {
    const call = { file: encodeDocument(state), changes: true };
    return this.#json('PUT', pathOf(model, '/optimizer'), call, options);
  }

  // --- contexts

  async contexts(options) {
    return (await this.#json('GET', '/contexts', {}, options)).contexts;
  }

  context(id, options) {
    return this.#json('GET', `/contexts/${encodeURIComponent(id)}`, {}, options);
  }

  deleteContext(id, options) {
    return this.#json('DELETE', `/contexts/${encodeURIComponent(id)}`, { changes: true }, options);
  }

  // --- the service

  ops(options) {
    return this.#json('GET', '/ops', {}, options);
  }

  health(options) {
    return this.#json('GET', '/healthz', {}, options);
  }

  /** Whether it takes requests. Asked once: "not yet" is an answer, too. */
  async ready(options) {
    try {
      await this.#call('GET', '/readyz', {}, { retries: 0, ...options });
      return true;
    } catch (error) {
      if (error instanceof GraddError && error.status === 503) return false;
      throw error;
    }
  }
}
