/** What went wrong, in words for the person at the screen. */
import { NetworkError, Problem } from "gatepost-client";
import { LOCALES } from "./locale";

/** Whether nobody is to blame but the weather: the service is away, and the same call may come again. */
export const isOutage = (error: unknown): boolean =>
  error instanceof NetworkError || (error instanceof Problem && error.status === 503);

export const hasCode = (error: unknown, ...codes: string[]): error is Problem =>
  error instanceof Problem && codes.includes(error.code);

/** A problem that the form's fields cannot show. */
export function explain(error: unknown, now = Date.now()): string {
  if (error instanceof NetworkError) return "We cannot reach the service. Nothing is lost; try again in a moment.";
  if (!(error instanceof Problem)) return "Something went wrong in this page. Reload it and try again.";
  switch (error.code) {
    case "RATE_LIMITED":
      return `Too many tries. ${when(error.retryAfter, now)}`;
    case "OVERLOADED":
    case "SERVICE_UNAVAILABLE":
      return "The service is busy or away right now. Nothing is lost; try again in a moment.";
    case "INVALID_CREDENTIALS":
      return "The email or the password is not right.";
    case "ACCOUNT_DISABLED":
      return "This account is disabled. Ask an administrator.";
    case "EMAIL_EXISTS":
      return "There is already an account with this email.";
    case "INVALID_ONE_TIME_TOKEN":
      return "This link was used already, is too old, or a newer one has replaced it.";
    case "INTERNAL_ERROR":
      return `Something went wrong on our side. ${reference(error)}`.trim();
    default:
      return sentence(error.errors.length ? error.errors.map(named).join(" ") : error.message);
  }
}

/** When one may try again: how long that is, and the time on the clock where it is more than a minute. */
export function when(seconds: number | null, now = Date.now()): string {
  if (!seconds) return "Try again in a moment.";
  if (seconds <= 90) return `Try again in ${seconds} ${seconds === 1 ? "second" : "seconds"}.`;
  const at = new Date(now + seconds * 1000).toLocaleTimeString(LOCALES, { hour: "2-digit", minute: "2-digit" });
  return `Try again in ${Math.ceil(seconds / 60)} minutes, at ${at}.`;
}

const OAUTH: Record<string, string> = {
  OAUTH_DENIED: "The sign-in was cancelled at the provider.",
  OAUTH_STATE_INVALID: "That sign-in took too long or began in another window. Please start again.",
  OAUTH_CODE_MISSING: "The provider sent no answer that we can use. Please start again.",
  OAUTH_EXCHANGE_FAILED: "The provider did not confirm the sign-in. Please start again.",
  OAUTH_EMAIL_UNVERIFIED: "The provider knows no verified email of yours. Verify it there, or sign up here.",
  EMAIL_EXISTS: "There is already an account with this email. Sign in to it with its password, then link the provider.",
  IDENTITY_IN_USE: "That account is linked to somebody else here, or you have linked another one of this provider.",
  ACCOUNT_DISABLED: "This account is disabled. Ask an administrator.",
  REAUTHENTICATION_REQUIRED: "Your sign-in was too long ago, or it ended meanwhile. Sign in again, then link.",
  PROVIDER_UNAVAILABLE: "The provider cannot be reached right now. Try later, or sign in another way.",
  PROVIDER_NOT_CONFIGURED: "This provider is not set up here.",
  RATE_LIMITED: "Too many sign-ins from here. Wait a few minutes and start again.",
  FORBIDDEN: "Registration is closed here.",
  SERVICE_UNAVAILABLE: "The service was away for a moment. Please start again.",
};

/** The words for a `?error=` with which a provider's sign-in came back. */
export const explainReturn = (code: string): string =>
  OAUTH[code] ?? "The sign-in with the provider did not work. Please start again.";

const named = (error: { field: string; message: string }): string => `${error.field}: ${sentence(error.message)}`;

const sentence = (text: string): string => (/[.!?]$/.test(text) ? text : `${text}.`);

const reference = (error: Problem): string => (error.requestId ? `Reference: ${error.requestId}.` : "");
