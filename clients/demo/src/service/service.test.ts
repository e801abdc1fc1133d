import { NetworkError, Problem } from "gatepost-client";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { readConfig } from "./config";
import { device, eventDetail } from "./events";
import { explain, explainReturn, isOutage, when } from "./problems";
import { Lookout } from "./reach";
import type { AuditEvent } from "./types";

const problem = (status: number, members: Record<string, unknown>) => new Problem(status, members);

describe("the configuration", () => {
  it("is an origin, with or without a slash at the end", () => {
    expect(readConfig({ authUrl: "https://auth.example.org/" })).toEqual({ authUrl: "https://auth.example.org" });
  });

  it.each([null, [], {}, { authUrl: 1 }, { authUrl: "auth.example.org" }, { authUrl: "https://a.example/path" }])(
    "is refused with the form that it should have: %j",
    (content) => expect(() => readConfig(content)).toThrow("https://auth.example.org"),
  );
});

describe("a problem in words", () => {
  it("says when to try again, with the time on the clock where that is a while", () => {
    const noon = new Date(2026, 0, 1, 12).getTime();
    expect(when(1)).toBe("Try again in 1 second.");
    expect(when(90)).toBe("Try again in 90 seconds.");
    expect(when(601, noon)).toMatch(/^Try again in 11 minutes, at 12:10( PM)?\.$/);
    expect(explain(problem(429, { code: "RATE_LIMITED", retryAfter: 30 }))).toContain("30 seconds");
  });

  it("names the fields that the form does not have", () => {
    const errors = [{ field: "name", message: "must have letters" }];
    expect(explain(problem(400, { code: "VALIDATION_ERROR", errors }))).toBe("name: must have letters.");
  });

  it("gives the reference of a fault that is ours", () => {
    expect(explain(problem(500, { code: "INTERNAL_ERROR", requestId: "3f69" }))).toContain("Reference: 3f69.");
  });

  it("knows an outage from a no", () => {
    expect(isOutage(new NetworkError("no answer"))).toBe(true);
    expect(isOutage(problem(503, { code: "SERVICE_UNAVAILABLE" }))).toBe(true);
    expect(isOutage(problem(429, { code: "RATE_LIMITED" }))).toBe(false);
  });

  it("has words for a code of a provider's return that it does not know", () => {
    expect(explainReturn("<b>")).toBe("The sign-in with the provider did not work. Please start again.");
  });
});

describe("an event in words", () => {
  const event = (detail: Record<string, unknown>) => ({ userId: "ada", detail }) as unknown as AuditEvent;

  it("says why, what and by whom, each once", () => {
    expect(eventDetail(event({ reason: "by_admin", by: "eve", count: 2 }))).toBe("by an administrator · 2 sessions");
    expect(eventDetail(event({ gained: ["admin"], lost: [], by: "command line" }))).toBe("given: admin · on the command line");
    expect(eventDetail(event({ reason: "SOMETHING_NEW", by: "ada" }))).toBe("something new");
  });

  it("names the device as the service does", () => {
    expect(device("Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) Version/18.0 Safari/604.1")).toBe("Safari on iPhone");
    expect(device("curl/8.5.0")).toBe("curl");
    expect(device("")).toBe("Unknown device");
  });
});

describe("the lookout", () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());

  it("asks until the service answers, less and less often, and tells of it once", async () => {
    const answers = [false, false, false, true];
    const ready = vi.fn(async () => answers.shift() ?? true);
    const lookout = new Lookout(ready);
    const heard = vi.fn();
    lookout.subscribe(heard);

    lookout.lost();
    lookout.lost();
    expect(lookout.current()).toEqual({ away: true, returns: 0 });
    await vi.advanceTimersByTimeAsync(5999);
    expect(ready).toHaveBeenCalledTimes(2);
    await vi.advanceTimersByTimeAsync(60_000);

    expect(ready).toHaveBeenCalledTimes(4);
    expect(lookout.current()).toEqual({ away: false, returns: 1 });
    expect(heard).toHaveBeenCalledTimes(2);
  });

  it("looks when a call is slow, and believes what it sees", async () => {
    const answers = [true, false];
    const lookout = new Lookout(async () => answers.shift() ?? false);

    await lookout.suspect();
    expect(lookout.current().away).toBe(false);
    await lookout.suspect();
    expect(lookout.current().away).toBe(true);
  });

  it("looks at once when the network is back, and not at all when nothing is wrong", async () => {
    const ready = vi.fn(async () => true);
    const lookout = new Lookout(ready);
    await lookout.look();
    expect(ready).not.toHaveBeenCalled();

    lookout.lost();
    await lookout.look();
    expect(lookout.current().away).toBe(false);
    await vi.advanceTimersByTimeAsync(60_000);
    expect(ready).toHaveBeenCalledTimes(1);
  });
});
