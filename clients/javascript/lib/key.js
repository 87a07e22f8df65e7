/** Idempotency keys, which no two clients may draw alike. */

let crypto = globalThis.crypto;

export function useCrypto(other) {
  crypto = other;
}

/** A new key. Pages that came over plain HTTP have getRandomValues but not randomUUID. */
export function newKey() {
  if (crypto.randomUUID) return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}
