/** Whether the service can be reached. Whoever finds nobody there says so; it is then asked until it answers. */
/** How long a call may take before we look whether anybody is there; ms. */
export const SLOW = 3000;

const PAUSES = [1000, 2000, 3000, 5000, 8000]; // ms between two looks; the last one stays

export interface Reach {
  readonly away: boolean;
  readonly returns: number; // how often it has come back: what waits for that watches this number
}

export class Lookout {
  reach: Reach = { away: false, returns: 0 };
  private readonly listeners = new Set<() => void>();
  private timer: ReturnType<typeof setTimeout> | undefined;

  constructor(private readonly ready: () => Promise<boolean>) {}

  subscribe = (listener: () => void): (() => void) => {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  };

  current = (): Reach => this.reach;

  /** A call has just found that the service is away. */
  lost(): void {
    if (this.reach.away) return;
    this.tell({ ...this.reach, away: true });
    this.lookAgain(0);
  }

  /** A call takes so long that somebody should look, well before it gives up. */
  async suspect(): Promise<void> {
    if (this.reach.away) return;
    if (!(await this.ready().catch(() => false))) this.lost();
  }

  /** Look at once, for example because the network is back. */
  async look(turn = 0): Promise<void> {
    if (!this.reach.away) return;
    clearTimeout(this.timer);
    const back = await this.ready().catch(() => false);
    if (!this.reach.away) return;
    if (back) this.tell({ away: false, returns: this.reach.returns + 1 });
    else this.lookAgain(turn + 1);
  }

  private lookAgain(turn: number): void {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => void this.look(turn), PAUSES[Math.min(turn, PAUSES.length - 1)]);
  }

  private tell(reach: Reach): void {
    this.reach = reach;
    for (const listener of this.listeners) listener();
  }
}

/** Ask `/ready`, which says no as well while the service is there and its store is not. */
export const asking = (authUrl: string) => async (): Promise<boolean> => {
  const options: RequestInit = { cache: "no-store", credentials: "omit", signal: AbortSignal.timeout(4000) };
  return (await fetch(`${authUrl}/ready`, options)).ok;
};
