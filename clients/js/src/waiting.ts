import { NetworkError } from "./problem.js";

export type Signals = (AbortSignal | null | undefined)[];

/**
 * Do `work`, for `ms` at most (0: as long as it takes) and until one of the signals says stop, whether or not `work`
 * heeds its own. Rejects with the reason of the signal, or a `NetworkError`.
 */
export function attempt<T>(work: (signal: AbortSignal) => Promise<T>, ms: number, ...signals: Signals): Promise<T> {
  const own = new AbortController();
  const over = new AbortController(); // a signal may live as long as the page: nothing is left hanging on it
  return new Promise<T>((resolve, reject) => {
    const stop = (reason: unknown) => {
      own.abort(reason);
      reject(reason);
    };
    const signal = joined(signals);
    if (signal.aborted) return stop(signal.reason);
    signal.addEventListener("abort", () => stop(signal.reason), { signal: over.signal });
    const timer = ms && setTimeout(() => stop(new NetworkError(`No answer within ${ms} ms`)), ms);
    work(own.signal)
      .then(resolve, reject)
      .finally(() => {
        clearTimeout(timer);
        over.abort();
      });
  });
}

/** One signal for all of these. */
export function joined(signals: Signals): AbortSignal {
  const given = signals.filter((signal) => signal != null);
  if ("any" in AbortSignal) return AbortSignal.any(given);
  const one = new AbortController(); // older browsers
  for (const signal of given) {
    if (signal.aborted) one.abort(signal.reason);
    signal.addEventListener("abort", () => one.abort(signal.reason));
  }
  return one.signal;
}

/** Wait, until one of the signals says stop. */
export const pause = (ms: number, ...signals: Signals): Promise<void> =>
  attempt(
    (signal) =>
      new Promise((resolve) => {
        const timer = setTimeout(resolve, ms);
        signal.addEventListener("abort", () => clearTimeout(timer));
      }),
    0,
    ...signals,
  );

/** The result of what others wait for too, unless this one's own signal says stop before. */
export const shared = <T>(work: Promise<T>, signal: AbortSignal | null | undefined): Promise<T> => attempt(() => work, 0, signal);

/** How long to wait before attempt `n + 1`: longer each time, half a minute at most, and never two clients in step. */
export const backoff = (n: number): number => Math.min(30_000, 500 * 2 ** n) * (0.5 + Math.random() / 2);
