/** Answers that are kept to be shown again while their ETag stands; the oldest go when there are too many. */
export class AnswerCache {
  #entries = new Map(); // by age of last use
  #bytes = 0;
  #most;

  constructor(mostBytes) {
    this.#most = mostBytes;
  }

  get(key) {
    return this.#entries.get(key);
  }

  delete(key) {
    this.#bytes -= this.#entries.get(key)?.bytes.length ?? 0;
    this.#entries.delete(key);
  }

  set(key, etag, bytes) {
    this.delete(key);
    if (bytes.length > this.#most) return;
    this.#entries.set(key, { etag, bytes });
    this.#bytes += bytes.length;
    for (const oldest of this.#entries.keys()) {
      if (this.#bytes <= this.#most) break;
      this.delete(oldest);
    }
  }
}
