import { NetworkError } from "./problem.js";

/**
 * Do `work`, for `ms` at most (0: as long as it takes) and until one of the signals says stop, whether or not `work`
 * heeds its own. Rejects with the reason of the signal, or a `NetworkError`.
 */
export function attempt<T>(
  work: (signal: AbortSignal) => Promise<T>,
  ms: number,
  ...signals: (AbortSignal | null | undefined)[]
): Promise<T> {
  const controller = new AbortController();
  const given = signals.filter((signal) => signal != null);
  return new Promise<T>((resolve, reject) => {
    const stop = (reason: unknown) => {
      controller.abort(reason);
      reject(reason);
    };
    // Not taken off after the headers: a body that is still read is stopped too.
    const listen = (signal: AbortSignal) => {
      if (signal.aborted) stop(signal.reason);
      else signal.addEventListener("abort", () => stop(signal.reason), { once: true });
    };
    if (AbortSignal.any && given.length) listen(AbortSignal.any(given));
    else given.forEach(listen);
    if (controller.signal.aborted) return;
    const timer = ms ? setTimeout(() => stop(new NetworkError(`No answer within ${ms} ms`)), ms) : undefined;
    work(controller.signal)
      .then(resolve, (cause) => {
        reject(cause instanceof NetworkError ? cause : new NetworkError("No answer", { cause }));
      })
      .finally(() => clearTimeout(timer));
  });
}

/** Wait, until one of the signals says stop. */
export const pause = (ms: number, ...signals: (AbortSignal | null | undefined)[]): Promise<void> =>
  attempt(
    (signal) =>
      new Promise((resolve) => {
        const timer = setTimeout(resolve, ms);
        signal.addEventListener("abort", () => clearTimeout(timer), { once: true });
      }),
    0,
    ...signals,
  );

/** The result of what others wait for too, unless this one's own signal says stop before. */
export function shared<T>(work: Promise<T>, signal: AbortSignal | null | undefined): Promise<T> {
  if (!signal) return work;
  return new Promise<T>((resolve, reject) => {
    const stop = () => reject(signal.reason);
    if (signal.aborted) stop();
    signal.addEventListener("abort", stop, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener("abort", stop));
  });
}

/** How long to wait before attempt `n + 1`: longer each time, half a minute at most, and never two clients in step. */
export const backoff = (n: number): number => Math.min(30_000, 500 * 2 ** n) * (0.5 + Math.random() / 2);

/**
 * Starts a watch that tells the milliseconds since. Only differences count, so a wrong clock does not matter; one clock
 * may stop while the machine sleeps and the other may be set back, so the one that went further is believed.
 */
export function watch(): () => number {
  const wall = Date.now();
  const steady = performance.now();
  return () => Math.max(Date.now() - wall, performance.now() - steady);
}

/** How long something is still good, counted from the moment it was asked for. */
export class Life {
  /** Milliseconds after the start when to renew it: jittered, so that tabs and clients do not come in step. */
  readonly due: number;

  constructor(
    private readonly elapsed: () => number,
    private readonly lasts: number,
  ) {
    this.due = lasts * (0.75 + 0.15 * Math.random());
  }

  left(): number {
    return this.lasts - this.elapsed();
  }

  untilDue(): number {
    return this.due - this.elapsed();
  }

  /** Whether it will do for one more call. */
  get good(): boolean {
    return this.left() > Math.min(10_000, this.lasts / 10);
  }
}
