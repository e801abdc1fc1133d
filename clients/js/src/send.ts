import { NetworkError, retryAfter } from "./problem.js";
import { Overtaken, type Session } from "./session.js";
import { attempt, backoff, joined, pause } from "./waiting.js";

const FOR_NOW = new Set([429, 502, 503, 504]);
/** A call that is told to wait longer is answered at once; ms. */
const LONGEST_WAIT = 10_000;

export interface How {
  /** Further attempts while it fails for now. */
  tries?: number;
  /** Read the whole answer within the time of the attempt. */
  whole?: boolean;
  /** Milliseconds for each attempt; 0: as long as it takes. */
  ms?: number;
  signal?: AbortSignal | null | undefined;
}

/** One request and, where it may be repeated, some more: bounded, and not before `Retry-After` says. */
export async function send(
  session: Session,
  request: () => [RequestInfo, RequestInit],
  { tries = 0, whole = true, ms = session.timeout, signal }: How,
): Promise<Response> {
  const { fetch = globalThis.fetch } = session.options;
  const closing = session.closing.signal;
  const once = async (own: AbortSignal) => {
    try {
      // Who reads the body can still stop it.
      const [input, init] = request();
      const response = await fetch(input, { ...init, signal: whole ? own : joined([own, closing, signal]) });
      return whole ? new Response((await response.text()) || null, response) : response;
    } catch (cause) {
      throw new NetworkError("No answer", { cause });
    }
  };
  for (let n = 0; ; n += 1) {
    let wait = backoff(n);
    try {
      const response = await attempt(once, ms, closing, signal);
      const told = retryAfter(response) ?? 0;
      if (n >= tries || !FOR_NOW.has(response.status) || told > LONGEST_WAIT) return response;
      drop(response);
      wait = Math.max(told, wait);
    } catch (error) {
      if (n >= tries || !(error instanceof NetworkError) || error instanceof Overtaken || closing.aborted) throw error;
    }
    await pause(wait, closing, signal);
  }
}

/** Leave the rest of an answer unread. */
export const drop = (response: Response) => void response.body?.cancel().catch(() => {});
