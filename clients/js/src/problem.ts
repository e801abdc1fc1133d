export interface FieldError {
  field: string;
  message: string;
}

/** Every code that the service knows; a newer service may say others, and other software says none: `""`. */
export type Code =
  | "VALIDATION_ERROR" | "MALFORMED_JSON"
  | "OAUTH_CODE_MISSING" | "OAUTH_STATE_INVALID" | "OAUTH_EXCHANGE_FAILED"
  | "OAUTH_EMAIL_UNVERIFIED"
  | "INVALID_ONE_TIME_TOKEN"
  | "NO_TOKEN" | "TOKEN_EXPIRED" | "TOKEN_STALE" | "TOKEN_REVOKED" | "INVALID_TOKEN"
  | "NO_REFRESH_TOKEN" | "INVALID_REFRESH_TOKEN" | "REFRESH_TOKEN_REUSED" | "SESSION_ENDED"
  | "INVALID_CREDENTIALS"
  | "INVALID_API_KEY"
  | "CSRF_FAILED"
  | "FORBIDDEN" | "ACCOUNT_DISABLED" | "ORIGIN_FORBIDDEN"
  | "OAUTH_DENIED"
  | "REAUTHENTICATION_REQUIRED"
  | "NOT_FOUND" | "PROVIDER_NOT_CONFIGURED" | "METHOD_NOT_ALLOWED"
  | "EMAIL_EXISTS"
  | "IDENTITY_IN_USE"
  | "TOO_MANY_KEYS"
  | "REQUEST_TIMEOUT" | "PAYLOAD_TOO_LARGE" | "UNSUPPORTED_MEDIA_TYPE" | "EXPECTATION_FAILED"
  | "RATE_LIMITED"
  | "INTERNAL_ERROR"
  | "PROVIDER_UNAVAILABLE"
  | "SERVICE_UNAVAILABLE" | "OVERLOADED"
  | (string & {});

/** The service said no (RFC 9457). `code` is stable, `message` is for people. */
export class Problem extends Error {
  readonly status: number;
  readonly code: Code;
  readonly title: string;
  /** What is wrong with each field of the form. */
  readonly errors: FieldError[];
  /** Seconds after which it may be tried again. */
  readonly retryAfter: number | null;
  readonly requestId: string | null;
  /** The roles or permissions, any of which would do. */
  readonly required: string[];
  /** Every member of the answer. */
  readonly members: Readonly<Record<string, unknown>>;

  constructor(status: number, members: Record<string, unknown> = {}, retryAfter: number | null = null) {
    const title = text(members.title) ?? `HTTP ${status}`;
    super(text(members.detail) ?? title);
    this.name = "Problem";
    this.status = status;
    this.code = text(members.code) ?? "";
    this.title = title;
    this.errors = list(members.errors);
    this.retryAfter = typeof members.retryAfter === "number" ? members.retryAfter : retryAfter;
    this.requestId = text(members.requestId);
    this.required = list(members.required);
    this.members = members;
  }

  /** The problem of an answer that is not `ok`. Reads its body. */
  static async of(response: Response): Promise<Problem> {
    const members = await response.json().catch(() => null);
    const wait = retryAfter(response);
    const problem = members && typeof members === "object" ? members : {};
    return new Problem(response.status, problem, wait === null ? null : Math.ceil(wait / 1000));
  }

  /** The answer that this was. */
  toResponse(): Response {
    const headers: Record<string, string> = { "Content-Type": "application/problem+json" };
    if (this.retryAfter !== null) headers["Retry-After"] = String(this.retryAfter);
    return new Response(JSON.stringify(this.members), { status: this.status, headers });
  }
}

/** No answer, or none that makes sense: offline, a timeout, a lost reply, somebody else's page. */
export class NetworkError extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "NetworkError";
  }
}

/** Milliseconds that `Retry-After` asks to wait: seconds, or a date by the server's own clock (RFC 9110, 10.2.3). */
export function retryAfter(response: Response): number | null {
  const told = response.headers.get("Retry-After")?.trim();
  if (!told) return null;
  if (/^\d+$/.test(told)) return Number(told) * 1000;
  const until = Date.parse(told);
  const now = Date.parse(response.headers.get("Date") ?? "") || Date.now();
  return Number.isNaN(until) ? null : Math.max(0, until - now);
}

/** What becomes of a call when nobody has made a mistake. */
export const isFailure = (error: unknown): error is Problem | NetworkError => error instanceof Problem || error instanceof NetworkError;

const text = (value: unknown): string | null => (typeof value === "string" ? value : null);
const list = (value: unknown) => (Array.isArray(value) ? value : []);
