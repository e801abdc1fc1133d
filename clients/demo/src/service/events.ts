/** Security events in words that the person who reads them uses. */
import type { AuditEvent } from "./types";

const WORDS: Record<string, string> = {
  "accounts.user.registered": "Account created",
  "accounts.user.deleted": "Account deleted",
  "accounts.user.taken_over": "Account claimed by the owner of its email",
  "accounts.password.changed": "Password changed",
  "accounts.password.reset_asked": "Password reset asked for",
  "accounts.password.reset": "Password reset by mail",
  "accounts.email.verified": "Email verified",
  "accounts.email.change_asked": "Change of email asked for",
  "accounts.email.changed": "Email changed",
  "accounts.identity.linked": "Sign-in method linked",
  "accounts.identity.unlinked": "Sign-in method unlinked",
  "sessions.session.started": "Signed in",
  "sessions.sign_in.refused": "Sign-in refused",
  "sessions.reauthentication.refused": "Wrong password while signed in",
  "sessions.session.recovered": "Session went on after a lost answer",
  "sessions.session.healed": "Session went on after a fault of the store",
  "sessions.refresh_token.reused": "Copied token used: session ended",
  "sessions.session.ended": "Session ended",
  "sessions.all.ended": "All sessions ended",
  "apikeys.key.created": "API key created",
  "apikeys.key.revoked": "API key revoked",
  "tokens.access_token.revoked": "Access token revoked",
  "tokens.signing_key.added": "Signing key added",
  "tokens.signing_key.retired": "Signing key retired",
  "admin.account.created": "Administrator created",
  "admin.roles.changed": "Roles changed",
  "admin.user.disabled": "Account disabled",
  "admin.user.enabled": "Account enabled",
  "admin.email.verified": "Email vouched for",
  "admin.email.unverified": "Verification of the email withdrawn",
  "admin.user.exported": "Data exported",
  "admin.users.imported": "Users imported",
  "admin.indexes.repaired": "Indexes repaired",
  "admin.mail.retried": "Mail tried again",
  "admin.mail.dropped": "Mail dropped",
};

export const EVENT_TYPES = Object.keys(WORDS);

const REASONS: Record<string, string> = {
  INVALID_CREDENTIALS: "wrong password",
  ACCOUNT_DISABLED: "the account is disabled",
  FORBIDDEN: "the email is not verified yet",
  logout: "signed out",
  logout_all: "signed out everywhere",
  revoked: "signed out from another device",
  signed_in_again: "signed in again in the same browser",
  password_changed: "the password was changed",
  taken_over: "the owner of the email took the account",
  account_disabled: "the account was disabled",
  by_admin: "by an administrator",
  expired: "its time was up",
  reuse: "a copied token was used",
  replaced: "the oldest made room for a newer one",
};

export const eventName = (type: string): string => WORDS[type] ?? type;

/** What there is to add to the name of an event; empty if nothing. */
export function eventDetail(event: AuditEvent): string {
  const { reason, provider, by, gained, lost, count } = event.detail;
  const said: string[] = [];
  if (typeof reason === "string") said.push(REASONS[reason] ?? reason.toLowerCase().replaceAll("_", " "));
  if (typeof provider === "string") said.push(provider);
  if (isList(gained)) said.push(`given: ${gained.join(", ")}`);
  if (isList(lost)) said.push(`taken: ${lost.join(", ")}`);
  if (typeof count === "number") said.push(count === 1 ? "1 session" : `${count} sessions`);
  if (typeof by === "string" && by !== event.userId) {
    said.push(by === "command line" ? "on the command line" : "by an administrator");
  }
  return [...new Set(said)].join(" · ");
}

const BROWSERS: readonly (readonly [RegExp, string])[] = [
  [/Edg(e|A|iOS)?\//, "Edge"],
  [/OPR\/|Opera/, "Opera"],
  [/SamsungBrowser\//, "Samsung Internet"],
  [/Firefox\/|FxiOS\//, "Firefox"],
  [/Chrome\/|CriOS\/|Chromium\//, "Chrome"],
  [/Safari\//, "Safari"],
  [/^curl\//, "curl"],
];
const SYSTEMS: readonly (readonly [RegExp, string])[] = [
  [/iPhone/, "iPhone"],
  [/iPad/, "iPad"],
  [/Android/, "Android"],
  [/Windows/, "Windows"],
  [/Mac OS X|Macintosh/, "macOS"],
  [/CrOS/, "ChromeOS"],
  [/Linux|X11/, "Linux"],
];

/** A user agent in words that its owner recognises, the same as the service has for sessions: `Firefox on Windows`. */
export function device(userAgent: string): string {
  const found = [BROWSERS, SYSTEMS].map((known) => known.find(([sign]) => sign.test(userAgent))?.[1]);
  return found.filter(Boolean).join(" on ") || "Unknown device";
}

const isList = (value: unknown): value is string[] => Array.isArray(value) && value.length > 0;
