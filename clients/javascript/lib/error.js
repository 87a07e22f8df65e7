const TYPE = 'urn:gradd:problem:';

/**
 * Why a call failed. `status` is HTTP's and `slug` the end of the problem's type ("stale",
 * "shape-mismatch"): see docs/api.md. A status of 0 means that no answer came: the slug is then
 * "unreachable" or "timeout", and `cause` what the platform had to say.
 */
export class GraddError extends Error {
  constructor({ status, slug, title, detail, pointer, expected, actual, requestId, retryAfterMs }, options) {
    const shapes = expected ? ` (expected ${JSON.stringify(expected)}, actual ${JSON.stringify(actual)})` : '';
    super(`${slug}: ${detail || title}${pointer ? ` (at ${pointer})` : ''}${shapes}`, options);
    this.name = 'GraddError';
    this.status = status;
    this.slug = slug;
    this.title = title;
    this.detail = detail;
    this.pointer = pointer;
    this.expected = expected;
    this.actual = actual;
    this.requestId = requestId;
    this.retryAfterMs = retryAfterMs;
  }
}

/** Milliseconds that Retry-After asks for, in seconds or as a date; undefined without one. */
function retryAfter(text) {
  if (!text) return undefined;
  const ms = /^\d+$/.test(text) ? Number(text) * 1000 : Date.parse(text) - Date.now();
  return Number.isNaN(ms) ? undefined : Math.max(0, ms);
}

function parseProblem(text) {
  try {
    return JSON.parse(text) ?? {};
  } catch {
    return {}; // whatever stands between client and service may answer as it likes
  }
}

/** The error that a response tells of, read from its problem document or, lacking that, its status. */
export function errorOf(response, text) {
  const { type, title, detail, pointer, expected, actual } = parseProblem(text);
  const known = typeof type === 'string' && type.startsWith(TYPE);
  return new GraddError({
    status: response.status,
    slug: known ? type.slice(TYPE.length) : 'unknown',
    title: title ?? response.statusText,
    detail: detail ?? `the answer was ${response.status} ${response.statusText}`,
    pointer,
    expected,
    actual,
    requestId: response.headers.get('x-request-id') ?? undefined,
    retryAfterMs: retryAfter(response.headers.get('retry-after')),
  });
}
