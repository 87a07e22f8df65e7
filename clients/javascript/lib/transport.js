/**
 * One call over HTTP, again where that can help. A call is tried again when no answer came (the network
 * failed, the time was up) or the service says "later": 429, 503, and 409 in-flight, which is an earlier
 * attempt of this very call. That is safe because a changing call bears one Idempotency-Key all along.
 */
import { GraddError, errorOf } from './error.js';

const FIRST_MS = 100; // of the waits between attempts, each twice the one before
const LONGEST_MS = 10_000;
const PATIENCE_MS = 60_000; // of a Retry-After; who asks for more gets no other attempt
const SAFE_MS = 240_000; // how old a key may be that is sent again: the service forgets it after five minutes

const TRANSIENT = new Set(['unreachable', 'timeout', 'in-flight']);

function isTransient({ status, slug, retryAfterMs = 0 }) {
  return (TRANSIENT.has(slug) || status === 429 || status === 503) && retryAfterMs <= PATIENCE_MS;
}

/** How long to wait before the next attempt. By chance, so that many clients do not come back at once. */
function waitOf(failures, retryAfterMs = 0) {
  const most = Math.min(LONGEST_MS, FIRST_MS * 2 ** failures);
  return retryAfterMs + most * (0.5 + Math.random() / 2);
}

function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', stop);
      resolve();
    }, ms);
    signal?.addEventListener('abort', stop, { once: true });
  });
}

/** A signal that follows `outer` and aborts by itself after `ms` (0: never); AbortSignal.any is too new. */
function deadline(outer, ms) {
  const controller = new AbortController();
  const follow = () => controller.abort(outer.reason);
  outer?.addEventListener('abort', follow, { once: true });
  const timer = ms && setTimeout(() => controller.abort(), ms);
  return {
    signal: controller.signal,
    release() {
      clearTimeout(timer);
      outer?.removeEventListener('abort', follow);
    },
  };
}

/** Of several addresses of one host, Node tells each failure apart. */
function reasonOf(error) {
  const { cause } = error;
  return cause?.message || cause?.errors?.[0]?.message || cause?.code || error.message;
}

/** A browser keeps from a page why another origin was not to be had. */
function hintOf(url) {
  const page = globalThis.location?.origin;
  if (!page || page === new URL(url).origin) return '';
  return `; pages of ${page} need a service that was started with --allowed-origins ${page}`;
}

function noAnswer(error, url, timedOut, ms) {
  const { origin } = new URL(url);
  const problem = timedOut
    ? { slug: 'timeout', detail: `no answer came from ${origin} in ${ms} ms` }
    : { slug: 'unreachable', detail: `no answer came from ${origin}: ${reasonOf(error)}${hintOf(url)}` };
  return new GraddError({ status: 0, ...problem }, { cause: error });
}

/** One attempt: the whole answer as { status, headers, bytes }, or a GraddError. */
async function attemptOnce(fetch, url, request, { signal: outer, timeoutMs }) {
  const { signal, release } = deadline(outer, timeoutMs);
  try {
    const response = await fetch(url, { ...request, redirect: 'manual', signal }); // to follow makes a POST a GET
    const bytes = new Uint8Array(await response.arrayBuffer());
    if (!response.ok && response.status !== 304) throw errorOf(response, new TextDecoder().decode(bytes));
    return { status: response.status, headers: response.headers, bytes };
  } catch (error) {
    if (error instanceof GraddError) throw error;
    outer?.throwIfAborted();
    throw noAnswer(error, url, signal.aborted, timeoutMs);
  } finally {
    release();
  }
}

/**
 * Sends `request` (as fetch takes it) until there is an answer, an error that stays, or enough of it. While
 * an earlier attempt is at work in the service, as one is that waits for a round, asking is no failure, and
 * its key cannot be forgotten.
 */
export async function send(fetch, url, request, { signal, timeoutMs, retries }) {
  let failures = 0;
  let keySince = performance.now();
  let atWorkSince;
  for (;;) {
    signal?.throwIfAborted();
    try {
      return await attemptOnce(fetch, url, request, { signal, timeoutMs });
    } catch (error) {
      if (!(error instanceof GraddError) || !isTransient(error) || retries === 0) throw error;
      const now = performance.now();
      if (error.slug === 'in-flight') {
        keySince = now;
        atWorkSince ??= now;
        if (timeoutMs && now - atWorkSince > timeoutMs) throw error;
      } else if (++failures > retries) {
        throw error;
      }
      const wait = waitOf(failures, error.retryAfterMs);
      if (now + wait - keySince > SAFE_MS) throw error;
      await pause(wait, signal);
    }
  }
}
