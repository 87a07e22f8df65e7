/** The calls of gradd. Members of requests and answers are those of docs/api.md, tensors as in tensor.js. */
import { AnswerCache } from './cache.js';
import { checkNames, checkObject, checkString, named } from './check.js';
import { decodeDocument, decodeMetadata, encodeDocument, hasTensors, namedTensors } from './document.js';
import { GraddError } from './error.js';
import { newKey } from './key.js';
import { readSafetensors, writeSafetensors } from './safetensors.js';
import { send } from './transport.js';

const JSON_TYPE = 'application/json';
const SAFETENSORS_TYPE = 'application/safetensors';

/** Methods that change nothing. */
const READS = new Set(['GET', 'HEAD']);

/** What a backward may have answered that is of no use to who pushes its gradients. */
const NOT_PUSHED = ['outputs', 'input_gradients', 'node_gradients'];

/** An entity tag of what If-Match is to be: one already, or anything with an incarnation and a version. */
function tagOf(condition) {
  return typeof condition === 'string' ? condition : `"${condition.incarnation}-${condition.version}"`;
}

function pathOf(model, part = '') {
  return `/models/${encodeURIComponent(checkString('model', model))}${part}`;
}

function contextPath(id) {
  return `/contexts/${encodeURIComponent(checkString('id', id))}`;
}

function readText({ bytes }) {
  return new TextDecoder().decode(bytes);
}

function readJson(answer) {
  return JSON.parse(readText(answer));
}

export class Client {
  #url;
  #token;
  #defaults;
  #fetch;
  #pulled;

  constructor(options) {
    checkObject('the argument of Client', options, "{ url: 'http://127.0.0.1:8080' }");
    const { url, token, timeoutMs = 120_000, retries = 6, cacheBytes = 256 * 2 ** 20, fetch } = options;
    checkString('url', url instanceof URL ? url.href : url);
    if (token !== undefined && !/^[!-~]+$/.test(token)) {
      throw new TypeError('token: it is empty, or holds a blank, the end of a line, or what else no token has');
    }
    this.#url = named('url', () => new URL(url)).href.replace(/\/+$/, '');
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
    checkObject('options', options, '{ retries: 0 }');
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
    const json = checkObject('specification', specification, "{ name: 'm', inputs: …, layers: … }");
    return this.#json('POST', '/models', { json, changes: true }, options);
  }

  async models(options) {
    return (await this.#json('GET', '/models', {}, options)).models;
  }

  describe(model, options) {
    return this.#json('GET', pathOf(model), {}, options);
  }

  patch(model, change, options) {
    const json = checkObject('change', change, '{ optimizer: { lr: 0.1 } }');
    return this.#json('PATCH', pathOf(model), { json, changes: true }, options);
  }

  /** Back to a snapshot: the newest, or that of `version`. */
  restore(model, request = {}, options = undefined) {
    const json = checkObject('request', request, '{ version: 1200 }');
    return this.#json('POST', pathOf(model, '/restore'), { json, changes: true }, options);
  }

  delete(model, options) {
    return this.#json('DELETE', pathOf(model), { changes: true }, options);
  }

  // --- passes

  forward(request, options) {
    return this.#document('POST', '/forward', { file: encodeDocument(request) }, options);
  }

  backward(request, options) {
    const file = encodeDocument(request);
    const changes = Boolean(request.apply || request.accumulate);
    return this.#document('POST', '/backward', { file, changes }, options);
  }

  step(request, options) {
    const json = checkObject('request', request, "{ model: 'm' }");
    return this.#json('POST', '/step', { json, changes: true }, options);
  }

  // --- parameters

  /** What was pulled before comes again as a copy while it stands: nobody's changes show in another's. */
  async parameters(model, { names, dtype, ...options } = {}) {
    const query = { names: checkNames('names', names)?.join(','), dtype };
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

  setParameters(model, parameters, { partial, wait, ...options } = {}) {
    const file = writeSafetensors(Object.fromEntries(namedTensors('parameters', parameters)));
    const call = { query: { partial: partial || undefined, wait }, file, changes: true };
    return this.#json('PUT', pathOf(model, '/parameters'), call, options);
  }

  blend(model, request, options) {
    const json = checkObject('request', request, "{ from: 'other', tau: 0.01 }");
    return this.#json('POST', pathOf(model, '/parameters'), { json, changes: true }, options);
  }

  // --- gradients

  push(model, contribution, options) {
    const given = checkObject('contribution', contribution, '{ incarnation: …, version: 1, gradients: … }');
    const sent = Object.entries(given).filter(([member]) => !NOT_PUSHED.includes(member));
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
    const call = { file: encodeDocument(state, 'state'), changes: true };
    return this.#json('PUT', pathOf(model, '/optimizer'), call, options);
  }

  // --- contexts

  async contexts(options) {
    return (await this.#json('GET', '/contexts', {}, options)).contexts;
  }

  context(id, options) {
    return this.#json('GET', contextPath(id), {}, options);
  }

  deleteContext(id, options) {
    return this.#json('DELETE', contextPath(id), { changes: true }, options);
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

  /** What the service counts, as Prometheus reads it. */
  async metrics(options) {
    return readText(await this.#call('GET', '/metrics', { answer: '*/*' }, options));
  }

  /** These calls as an OpenAPI document. */
  openapi(options) {
    return this.#json('GET', '/openapi.json', {}, options);
  }

  /**
   * Any request, such as one that has no method here. `document` is sent as JSON, or as safetensors if it has
   * maps of tensors; the answer is a document, or a text where it is none.
   */
  async request(method, path, document = undefined, { query, ...options } = {}) {
    if (READS.has(method) && document !== undefined) throw new TypeError(`a ${method} has no document`);
    const call = { query, answer: `${JSON_TYPE}, ${SAFETENSORS_TYPE};q=0.9, */*;q=0.1` };
    if (hasTensors(document)) Object.assign(call, { file: encodeDocument(document), answer: SAFETENSORS_TYPE });
    else call.json = document;
    const answered = await this.#call(method, path, { ...call, changes: !READS.has(method) }, options);
    const type = answered.headers.get('content-type') ?? '';
    if (type.startsWith(SAFETENSORS_TYPE)) return decodeDocument(answered.bytes);
    return type.startsWith(JSON_TYPE) ? readJson(answered) : readText(answered);
  }
}
