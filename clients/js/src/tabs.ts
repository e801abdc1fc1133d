import type { EndReason } from "./types.js";

/**
 * What tabs tell one another; never a token.
 *
 * - `in`: this user has signed in
 * - `here`: a page has just been opened, perhaps by coming back from a provider, and found this user signed in
 * - `out`: the session of this user is over
 * - `fresh`: the cookies of this user are good until this time of the machine's clock
 */
export type Message =
  | { type: "in" | "here"; user: string }
  | { type: "out"; user: string | null; reason: EndReason }
  | { type: "fresh"; user: string; until: number };

const REASONS: readonly unknown[] = ["none", "signed-out", "expired", "reused", "ended", "disabled"];

export interface Tabs {
  tell(message: Message): void;
  close(): void;
}

/** The other tabs of this origin; nobody where there is no `BroadcastChannel`. */
export function tabs(name: string | false, hear: (message: Message) => void): Tabs {
  if (name === false || typeof BroadcastChannel === "undefined") return { tell() {}, close() {} };
  const channel = new BroadcastChannel(name);
  channel.onmessage = ({ data }) => isMessage(data) && hear(data);
  (channel as { unref?: () => void }).unref?.(); // Node would go on running for it
  return {
    tell: (message) => channel.postMessage(message),
    close: () => channel.close(),
  };
}

/** Another version of this library may be open in another tab. */
function isMessage(data: unknown): data is Message {
  if (typeof data !== "object" || data === null) return false;
  const { type, user, reason, until } = data as Record<string, unknown>;
  if (type === "out") return (user === null || typeof user === "string") && REASONS.includes(reason);
  return typeof user === "string" && (type === "in" || type === "here" || (type === "fresh" && typeof until === "number"));
}
