/** What pages load. While the service is away they keep what they have, and go on when it is back. */
import type { Problem } from "gatepost-client";
import { useAuth } from "gatepost-client/react";
import { createContext, use, useCallback, useEffect, useRef, useState, useSyncExternalStore } from "react";
import { isOutage } from "./problems";
import { type Lookout, type Reach, SLOW } from "./reach";
import type { Page } from "./types";

export const LookoutContext = createContext<Lookout | null>(null);

export function useLookout(): Lookout {
  const lookout = use(LookoutContext);
  if (!lookout) throw new Error("useLookout outside of its context");
  return lookout;
}

export function useReach(): Reach {
  const lookout = useLookout();
  return useSyncExternalStore(lookout.subscribe, lookout.current);
}

/** Look whether the service is there once something takes long, and ask who it is again when it is back. */
export function useWaiting(): void {
  const { auth, status } = useAuth();
  const lookout = useLookout();
  const { returns } = useReach();
  useEffect(() => {
    if (status !== "checking") return;
    if (returns) void auth.user().catch(() => null); // what is wrong now is in the state
    const slow = setTimeout(() => void lookout.suspect(), SLOW);
    return () => clearTimeout(slow);
  }, [auth, lookout, status, returns]);
}

export interface Loaded<T> {
  data: T | undefined; // what was loaded last
  problem: Problem | Error | null;
  set(data: T): void;
  reload(): void;
}

/** Load something when the page opens and whenever `key` changes. */
export function useLoad<T>(key: string, load: (signal: AbortSignal) => Promise<T>): Loaded<T> {
  const [state, setState] = useState<{ key: string; data?: T; problem: Error | null }>({ key, problem: null });
  const [turn, setTurn] = useState(0);
  const lookout = useLookout();
  const { returns } = useReach();
  const waiting = useRef(false);
  const current = useRef(load);
  current.current = load;

  useEffect(() => {
    const abort = new AbortController();
    const slow = setTimeout(() => void lookout.suspect(), SLOW);
    waiting.current = false;
    current
      .current(abort.signal)
      .then((data) => !abort.signal.aborted && setState({ key, data, problem: null }))
      .catch((error: Error) => {
        if (abort.signal.aborted) return;
        if (isOutage(error)) {
          waiting.current = true;
          lookout.lost();
        } else setState((before) => ({ key, data: before.key === key ? before.data : undefined, problem: error }));
      })
      .finally(() => clearTimeout(slow));
    return () => {
      abort.abort();
      clearTimeout(slow);
    };
  }, [key, turn, lookout]);

  useEffect(() => {
    if (waiting.current) setTurn((before) => before + 1);
  }, [returns]);

  // Not over what another key has brought meanwhile.
  const set = useCallback(
    (data: T) => setState((before) => (before.key === key ? { key, data, problem: null } : before)),
    [key],
  );
  const reload = useCallback(() => setTurn((before) => before + 1), []);
  const fresh = state.key === key;
  return { data: fresh ? state.data : undefined, problem: fresh ? state.problem : null, set, reload };
}

/** A list in pages, each asked for when it is wanted. `path` has no cursor yet. */
export function usePages<T>(path: string): Loaded<Page<T>> & { more(): Promise<void> } {
  const { auth } = useAuth();
  const loaded = useLoad<Page<T>>(path, (signal) => auth.call("GET", path, undefined, { signal }));
  const { data, set } = loaded;
  const more = async () => {
    if (!data?.nextCursor) return;
    const cursor = encodeURIComponent(data.nextCursor);
    const next = await auth.call<Page<T>>("GET", `${path}${path.includes("?") ? "&" : "?"}cursor=${cursor}`);
    set({ items: [...data.items, ...next.items], nextCursor: next.nextCursor });
  };
  return { ...loaded, more };
}
