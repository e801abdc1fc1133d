import { life } from "./life.js";
import type { Session } from "./session.js";
import type { EndReason } from "./types.js";

/**
 * What tabs tell one another; never a token.
 *
 * - `in`: this user has signed in
 * - `here`: a page has just been opened, perhaps by coming back from a provider, and found this user signed in
 * - `out`: the session of this user is over, that of this id if one is named
 * - `fresh`: the cookies of this user are good until this time of the machine's clock
 */
export type Message =
  | { type: "in" | "here"; user: string }
  | { type: "out"; user: string | null; reason: EndReason; session?: string | undefined }
  | { type: "fresh"; user: string; until: number };

const REASONS: readonly unknown[] = ["none", "signed-out", "expired", "reused", "ended", "disabled"];

/** Tell the other tabs of this origin, and hear them; nobody where there is no `BroadcastChannel`. */
export function joinTabs(session: Session): void {
  const { options, inCookies, base } = session;
  // Without cookies each tab has a session of its own.
  if (!inCookies || options.channel === false || typeof BroadcastChannel === "undefined") return;
  let channel: BroadcastChannel;
  try {
    channel = new BroadcastChannel(options.channel ?? `gatepost ${base}`);
  } catch {
    return; // a frame that may not have storage may not have this either
  }
  channel.onmessage = ({ data }) => isMessage(data) && hear(session, data);
  (channel as { unref?: () => void }).unref?.(); // Node would go on running for it
  session.tell = (message) => channel.postMessage(message);
  session.closing.signal.addEventListener("abort", () => {
    session.tell = () => {};
    channel.close();
  });
}

function hear(session: Session, message: Message): void {
  const { userId } = session;
  const same = userId === message.user;
  if (message.type === "out") {
    // Of another user, or of the session before: this tab knows better already.
    if (message.user && userId && !same) return;
    if (message.session && session.id && message.session !== session.id) return;
    session.interrupt();
    session.end(message.reason, true);
  } else if (message.type === "fresh") {
    const left = message.until - Date.now();
    // Not a late word of cookies that were replaced since.
    if (!same || !(left > (session.life?.left() ?? 0))) return;
    session.life = life(left);
    session.arm();
  } else if (message.type === "in" || !(same || session.state.status === "checking")) {
    if (!same) return session.begin(true);
    session.interrupt();
    session.csrf = session.access = session.id = undefined; // the same person, in a new session
  }
}

/** Another version of this library may be open in another tab. */
function isMessage(data: unknown): data is Message {
  const { type, user, reason, until } = Object(data) as Record<string, unknown>;
  if (type === "out") return (user === null || typeof user === "string") && REASONS.includes(reason);
  return typeof user === "string" && (type === "in" || type === "here" || (type === "fresh" && typeof until === "number"));
}
