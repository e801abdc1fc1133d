/** Shapes of the service that the client library has no method for. */
export interface Page<T> {
  items: T[];
  nextCursor: string | null;
}

export interface ApiKey {
  id: string;
  name: string;
  prefix: string;
  permissions: string[];
  createdAt: string;
  lastUsedAt: string | null;
  expiresAt: string | null;
}

export interface NewApiKey extends ApiKey {
  apiKey: string; // shown this once
}

export interface AuditEvent {
  id: string;
  at: string;
  type: string;
  userId: string | null;
  sessionId: string | null;
  ip: string | null;
  userAgent: string | null;
  requestId: string | null;
  outcome: string;
  detail: Record<string, unknown>;
}

export interface Statistics {
  totalUsers: number;
  activeUsers: number;
  disabledUsers: number;
  newUsers: number;
  activeSessions: number;
  roles: Record<string, number>;
  waitingMail: number;
  parkedMail: number;
  security: { lastHour: Signals; lastDay: Signals };
}

/** Signs of an attack, each with how often it was seen. */
export interface Signals {
  failedSignIns: number;
  limitedSignIns: number;
  burstsByAccount: number;
  burstsByAddress: number;
  refreshTokensReused: number;
  brokenClientReplays: number;
  newDeviceSignIns: number;
}
