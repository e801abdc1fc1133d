/**
 * Starts a watch that tells the milliseconds since. Only differences count, so a wrong clock does not matter; one clock
 * may stop while the machine sleeps and the other may be set back, so the one that went further is believed.
 */
export function watch(): () => number {
  const wall = Date.now();
  const steady = performance.now();
  return () => Math.max(Date.now() - wall, performance.now() - steady);
}

/** How long something is still good; milliseconds. */
export interface Life {
  left(): number;
  /** Until it should be renewed: jittered, so that tabs and clients do not come in step. */
  untilDue(): number;
  /** Whether it will do for one more call. */
  good(): boolean;
}

/** What is good for `lasts` milliseconds from the moment it was asked for, when the watch was started. */
export function life(lasts: number, elapsed = watch()): Life {
  const due = lasts * (0.75 + 0.15 * Math.random());
  const left = () => lasts - elapsed();
  return { left, untilDue: () => due - elapsed(), good: () => left() > Math.min(10_000, lasts / 10) };
}
