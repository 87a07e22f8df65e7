/** Client of gradd, a gradient service. Members of requests and answers are explained in docs/api.md. */

// --- tensors

export type Dtype = 'F32' | 'F64' | 'F16' | 'BF16' | 'U8' | 'I32' | 'I64' | 'BOOL';
export type FloatDtype = 'F32' | 'F64' | 'F16' | 'BF16';

/** Elements in row-major order. Those of F16 and BF16 are their bits, those of BOOL 0 and 1. */
export type Tensor =
  | { dtype: 'F32'; shape: number[]; data: Float32Array }
  | { dtype: 'F64'; shape: number[]; data: Float64Array }
  | { dtype: 'F16' | 'BF16'; shape: number[]; data: Uint16Array }
  | { dtype: 'U8' | 'BOOL'; shape: number[]; data: Uint8Array }
  | { dtype: 'I32'; shape: number[]; data: Int32Array }
  | { dtype: 'I64'; shape: number[]; data: BigInt64Array };

export type TensorOf<D extends Dtype> = Extract<Tensor, { dtype: D }>;

/** A typed array whose type says its dtype. */
export type Elements = Float32Array | Float64Array | Uint8Array | Uint8ClampedArray | Int32Array | BigInt64Array;

export type Nested = number | bigint | boolean | Elements | readonly Nested[];

/** What the client takes for a tensor. Numbers in nested arrays are sent as F64, bigints as I64. */
export type TensorLike = Tensor | Nested;

export type Tensors = Record<string, Tensor>;
export type TensorsLike = Record<string, TensorLike>;

/**
 * A tensor of what is given. With `dtype` its elements are converted, to integers exactly or not at all;
 * with `shape` it gets that shape. Throws TypeError or RangeError.
 */
export function tensor<D extends Dtype>(given: TensorLike, as: { dtype: D; shape?: number[] }): TensorOf<D>;
export function tensor(given: TensorLike, as?: { dtype?: Dtype; shape?: number[] }): Tensor;

/** The elements as float32: the tensor's own array if it is one, otherwise converted. */
export function toFloat32(given: TensorLike): Float32Array;

export type NestedNumbers = number | bigint | NestedNumbers[];

/** The elements as nested arrays of numbers (of I64: bigints). */
export function toNested(given: TensorLike): NestedNumbers;

/** Numbers as the bits of a 16-bit format, rounded to nearest, ties to even. */
export function encodeHalf(numbers: Iterable<number> | ArrayLike<number>, dtype: 'F16' | 'BF16'): Uint16Array;
/** The bits of a 16-bit format as numbers, exactly. */
export function decodeHalf(bits: Iterable<number> | ArrayLike<number>, dtype: 'F16' | 'BF16'): Float32Array;

/** A safetensors file. */
export function writeSafetensors(tensors: TensorsLike, metadata?: Record<string, string>): Uint8Array;
/** The tensors use the file's own bytes where they are aligned. Throws if it is no safetensors file. */
export function readSafetensors(file: ArrayBuffer | ArrayBufferView): {
  tensors: Tensors;
  metadata: Record<string, string>;
};

// --- models

/** An operator, loss or optimizer with its attributes: see docs/ops.md. */
export interface Op {
  op: string;
  [attribute: string]: unknown;
}

export interface Layer extends Op {
  name?: string;
  inputs?: string[];
  trainable?: boolean;
  /** Parameters that are another layer's: { weight: "words.weight" }. */
  tied?: Record<string, string>;
}

export interface Loss extends Op {
  input?: string;
  target?: string;
  sample_weight?: string;
  reduction?: 'mean' | 'sum';
  scale?: number;
}

export interface Graph {
  seed?: number;
  dtype?: 'F32' | 'F64';
  inputs: Record<string, { shape: number[]; dtype?: 'F32' | 'F64' | 'I64' }>;
  layers: Layer[];
  outputs?: string[];
  loss?: Loss | Loss[];
  optimizer?: Op | null;
}

export interface Specification extends Graph {
  name: string;
  /** How many versions old a gradient may be when it is applied or accumulated. */
  max_staleness?: number;
  aggregation?: Aggregation;
  /** Whether forwards that come at the same time are computed together. */
  coalesce?: boolean;
  /** What is left of the model after a crash. */
  durability?: Durability;
}

export type Durability = 'none' | 'snapshot' | 'journal';

/** Whether updates are applied as they come, or in rounds: the mean or sum of what all workers contributed. */
export type Aggregation =
  | { mode: 'async' }
  | { mode: 'sync'; workers: number; quorum?: number; timeout_ms?: number; reduce?: 'mean' | 'sum' };

/** What a changing call answers. */
export interface Changed {
  /** The answer to a call that had been made already; it has no tensors then. */
  replayed?: true;
  /** The version that would be there after a crash; null where there would be none. */
  durable_version?: number | null;
}

/** When a change is answered: once it is made, or once it is on the disk. */
interface Waits {
  wait?: 'durable';
}

/** What an answer says of the model that it saw. */
export interface Seen {
  model: string;
  incarnation: string;
  version: number;
}

export interface Description {
  name: string;
  incarnation: string;
  version: number;
  seed: number;
  dtype: 'F32' | 'F64';
  numbers: number;
  nodes: { name: string; op: string; dtype: Dtype; shape: number[]; rows?: boolean }[];
  outputs: string[];
  parameters: { name: string; shape: number[]; trainable: boolean; buffer?: boolean; dtype?: Dtype }[];
  /** The most that a parameter has taken. */
  steps: number;
  accumulated: number;
  /** The round that waits; null where updates are applied as they come. */
  round: { version: number; workers: string[]; missing: number; since_ms: number } | null;
  /** How many gradients there were of each staleness, by ranges of it. */
  staleness: Record<string, number>;
  specification: Specification;
}

// --- passes

interface Pass {
  inputs?: TensorsLike;
  mode?: 'eval' | 'train';
  seed?: number;
  first_row?: number;
  retain?: boolean;
  dtype?: FloatDtype;
}

interface Stateless {
  model: Graph;
  parameters?: TensorsLike;
}

/** A model of the service by its name, or one that is sent along and forgotten. */
interface Named {
  model: string;
}

interface ForwardMembers extends Pass {
  outputs?: string[];
}

export type ForwardRequest = ForwardMembers & (Named | Stateless);

export interface ForwardAnswer {
  seed: number;
  outputs: Tensors;
  context?: string;
}

export type Returned = 'parameters' | 'inputs' | 'nodes' | 'outputs';

interface BackwardMembers extends Pass, Use {
  /** The indices of the losses that are evaluated; all if left out. */
  losses?: number[];
  targets?: TensorsLike;
  upstream?: TensorsLike;
  normalizer?: number | number[];
  return?: Returned[];
}

export type BackwardRequest = BackwardMembers & (Named | Stateless | { context: string });

/** What becomes of a gradient. */
export interface Use extends Waits {
  apply?: boolean | { lr: number };
  accumulate?: boolean | { scale: number };
  /** Refused with 412 "stale" if its version is further back; a model's own bound holds, too. */
  max_staleness?: number;
  /** Who contributes: needed where updates are applied in rounds. */
  worker?: string;
}

/** What became of it. */
export interface Used extends Changed {
  applied_version?: number;
  accumulated?: { contributions: number; scale: number };
  /** How many versions old it was. */
  staleness?: number;
  /** What was applied together with it. */
  round?: { contributions: number; samples: number };
}

export interface BackwardAnswer extends Used {
  loss?: number;
  losses?: number[];
  normalizers?: number[];
  samples: number;
  seed: number;
  gradients?: Tensors;
  /** Statistics of the batch, in a model with buffers. */
  buffers?: Tensors;
  input_gradients?: Tensors;
  node_gradients?: Tensors;
  outputs?: Tensors;
}

export interface StepRequest extends Waits {
  model: string;
  mean?: boolean;
  lr?: number;
  max_staleness?: number;
}

export interface StepAnswer extends Seen, Changed {
  applied_version: number;
  contributions: number;
}

// --- the rest

export interface Pulled {
  incarnation: string;
  version: number;
  parameters: Tensors;
}

export interface ParametersSet extends Changed {
  model: string;
  incarnation: string;
  applied_version: number;
}

/** A gradient and the version that it is of: what `backward` answered, or the like. Applied unless accumulated. */
export interface Contribution extends Use {
  incarnation: string;
  version: number;
  gradients: TensorsLike;
  buffers?: TensorsLike;
  samples?: number;
  /** Members of a backward's answer that are of no influence. */
  [answered: string]: unknown;
}

/** The accumulation buffer. */
export interface Accumulated extends Seen {
  contributions: number;
  scale: number;
  oldest_version: number;
  gradients: Tensors;
  /** What was seen of the buffers, in a model that has any. */
  buffers?: Tensors;
}

export interface OptimizerState extends Seen {
  op: string;
  /** How many steps all parameters have taken or, where they differ, each by its name. */
  steps: number | Record<string, number>;
  /** Tensors of the state that await their first step; absent where none does. */
  fresh?: string[];
  state: Tensors;
}

export interface Context extends Seen {
  context: string;
  rows: number;
  mode: 'eval' | 'train';
  seed: number;
  bytes: number;
  expires_in_ms: number;
}

export interface Catalogue {
  operators: CatalogueEntry[];
  losses: CatalogueEntry[];
  /** `takes`: the greatest numbers of a gradient that the optimizer takes, by type. */
  optimizers: (CatalogueEntry & { takes: { F32: number; F64: number } })[];
}

export interface CatalogueEntry {
  op: string;
  summary: string;
  attributes: { name: string; type: string; required: boolean; text: string; [more: string]: unknown }[];
  [more: string]: unknown;
}

// --- the client

export interface ClientOptions {
  /** Where the service is: "http://127.0.0.1:8080". */
  url: string | URL;
  /** The bearer token, where the service asks for one. */
  token?: string;
  /** How long one attempt may take, in milliseconds; 0: as long as it likes. Default 120000. */
  timeoutMs?: number;
  /** How often a call is tried again that failed for now. Default 6. */
  retries?: number;
  /** How many bytes of pulled parameters are kept to be shown again while they stand. Default 256 MiB. */
  cacheBytes?: number;
  /** Instead of the platform's fetch. */
  fetch?: typeof globalThis.fetch;
}

export interface CallOptions {
  /** Ends the call, and the waits between its attempts. */
  signal?: AbortSignal;
  timeoutMs?: number;
  retries?: number;
}

/** Of calls that change something. */
export interface ChangeOptions extends CallOptions {
  /** Change this version or nothing (412 "stale"): an entity tag, or whatever has its incarnation and version. */
  ifMatch?: string | { incarnation: string; version: number };
  /** 1 to 128 visible characters that no other change has; one is drawn where none is given. */
  idempotencyKey?: string;
}

export declare class Client {
  constructor(options: ClientOptions);

  create(specification: Specification, options?: ChangeOptions): Promise<Description & Changed>;
  models(options?: CallOptions): Promise<{ name: string; incarnation: string; version: number }[]>;
  describe(model: string, options?: CallOptions): Promise<Description>;
  /** A JSON Merge Patch: members replace, null removes. */
  patch(
    model: string,
    change: {
      optimizer?: Record<string, unknown> | null;
      max_staleness?: number | null;
      aggregation?: Aggregation | null;
      coalesce?: boolean | null;
      durability?: Durability;
    },
    options?: ChangeOptions,
  ): Promise<Description & Changed>;
  delete(model: string, options?: ChangeOptions): Promise<{ deleted: string } & Changed>;
  /** Back to a snapshot: the newest, or that of `version`. */
  restore(model: string, request?: { version?: number }, options?: ChangeOptions): Promise<Seen & Changed>;

  forward(request: ForwardMembers & Named, options?: CallOptions): Promise<ForwardAnswer & Seen>;
  forward(request: ForwardRequest, options?: CallOptions): Promise<ForwardAnswer & Partial<Seen>>;
  backward(
    request: BackwardMembers & (Named | { context: string }),
    options?: ChangeOptions,
  ): Promise<BackwardAnswer & Seen>;
  backward(request: BackwardRequest, options?: ChangeOptions): Promise<BackwardAnswer & Partial<Seen>>;
  step(request: StepRequest, options?: ChangeOptions): Promise<StepAnswer>;

  /**
   * The parameters, or those that are named. They are the caller's own to change, also when they have not
   * changed since the last pull and so were not sent again.
   */
  parameters(model: string, options?: CallOptions & { names?: string[]; dtype?: FloatDtype }): Promise<Pulled>;
  /** Sets all parameters, or with `partial` some. */
  setParameters(
    model: string,
    parameters: TensorsLike,
    options?: ChangeOptions & Waits & { partial?: boolean },
  ): Promise<ParametersSet>;
  /** θ ← τ θ_from + (1 − τ) θ. */
  blend(
    model: string,
    request: { from: string; tau: number } & Waits,
    options?: ChangeOptions,
  ): Promise<ParametersSet & { from_version: number }>;

  /** Applies or accumulates a gradient that was computed elsewhere. */
  push(model: string, contribution: Contribution, options?: ChangeOptions): Promise<Seen & Used>;
  gradients(model: string, options?: CallOptions & { dtype?: FloatDtype }): Promise<Accumulated>;
  clearGradients(
    model: string,
    options?: ChangeOptions,
  ): Promise<{ model: string; incarnation: string; cleared: number } & Changed>;

  optimizer(model: string, options?: CallOptions & { dtype?: FloatDtype }): Promise<OptimizerState>;
  /** What `optimizer` answered can be given back as it is. */
  setOptimizer(
    model: string,
    state: {
      steps: number | Record<string, number>;
      fresh?: string[];
      state: TensorsLike;
      op?: string;
    } & Partial<Seen> &
      Waits,
    options?: ChangeOptions,
  ): Promise<Description & Changed>;

  contexts(options?: CallOptions): Promise<Context[]>;
  context(id: string, options?: CallOptions): Promise<Context>;
  deleteContext(id: string, options?: ChangeOptions): Promise<{ deleted: string } & Changed>;

  ops(options?: CallOptions): Promise<Catalogue>;
  health(options?: CallOptions): Promise<{ status: string; version: string }>;
  /** Whether the service takes requests. */
  ready(options?: CallOptions): Promise<boolean>;
  /** What the service counts, as Prometheus reads it. */
  metrics(options?: CallOptions): Promise<string>;
  /** These calls as an OpenAPI document. */
  openapi(options?: CallOptions): Promise<Record<string, unknown>>;

  /**
   * Any request. `document` is sent as JSON, or as safetensors if it has maps of tensors; the answer is a
   * document, or a text where it is none. Whatever is no GET bears an Idempotency-Key.
   */
  request(
    method: string,
    path: string,
    document?: Record<string, unknown>,
    options?: ChangeOptions & { query?: Record<string, string> },
  ): Promise<unknown>;
}

/**
 * Why a call failed. `status` is HTTP's and `slug` the end of the problem's type ("shape-mismatch"). When no
 * answer came, status is 0, slug "unreachable" or "timeout", and cause the platform's own error.
 */
export declare class GraddError extends Error {
  readonly status: number;
  readonly slug: string;
  readonly title?: string;
  readonly detail?: string;
  /** A JSON Pointer to the place in the request. */
  readonly pointer?: string;
  /** The shapes that disagree; null for a dimension that may be any. */
  readonly expected?: (number | null)[];
  readonly actual?: (number | null)[];
  /** The X-Request-Id, which the service's log has, too. */
  readonly requestId?: string;
  readonly retryAfterMs?: number;
}
