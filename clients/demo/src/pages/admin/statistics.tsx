import { useAuth } from "gatepost-client/react";
import { useLoad } from "../../service/hooks";
import { LOCALES } from "../../service/locale";
import type { Signals, Statistics } from "../../service/types";
import { Button } from "../../ui/button";
import { Loading, Page } from "../../ui/page";

const clock = new Intl.DateTimeFormat(LOCALES, { timeStyle: "medium" });

export function StatisticsPage() {
  const { auth } = useAuth();
  const loaded = useLoad("statistics", async (signal) => {
    const counts = await auth.call<Statistics>("GET", "/api/admin/stats", undefined, { signal });
    return { ...counts, at: new Date() };
  });
  const asOf = loaded.data && `As of ${clock.format(loaded.data.at)}.`;
  return (
    <Page title="Statistics" lead={<span role="status">{asOf ?? "One moment …"}</span>}>
      <Loading loaded={loaded} rows={4}>
        {(counts) => (
          <>
            <Numbers
              label="Accounts and sessions"
              of={{
                Users: counts.totalUsers,
                Active: counts.activeUsers,
                Disabled: counts.disabledUsers,
                "New in 24 hours": counts.newUsers,
                "Open sessions": counts.activeSessions,
              }}
            />
            <h2>Roles</h2>
            <Numbers label="Roles" of={counts.roles} />
            <h2>Mail</h2>
            <Numbers label="Mail" of={{ Waiting: counts.waitingMail, "Given up": counts.parkedMail }} />
            <h2>Security</h2>
            <Seen {...counts.security} />
            <Button onClick={loaded.reload}>Count again</Button>
          </>
        )}
      </Loading>
    </Page>
  );
}

const SIGNALS: Record<keyof Signals, string> = {
  failedSignIns: "Failed sign-ins",
  limitedSignIns: "Sign-ins refused by a limit",
  burstsByAccount: "Accounts under attack",
  burstsByAddress: "Addresses that attack",
  refreshTokensReused: "Refresh tokens reused",
  brokenClientReplays: "Replays by a broken client",
  newDeviceSignIns: "Sign-ins with a new device",
};

function Seen({ lastHour, lastDay }: Statistics["security"]) {
  return (
    <div className="card table-card">
      <table className="counts" aria-label="Security">
        <thead>
          <tr>
            <th scope="col">What was seen</th>
            <th scope="col">Last hour</th>
            <th scope="col">Last day</th>
          </tr>
        </thead>
        <tbody>
          {(Object.keys(SIGNALS) as (keyof Signals)[]).map((signal) => (
            <tr key={signal}>
              <th scope="row">{SIGNALS[signal]}</th>
              <td>{lastHour[signal].toLocaleString(LOCALES)}</td>
              <td>{lastDay[signal].toLocaleString(LOCALES)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Numbers({ label, of }: { label: string; of: Record<string, number> }) {
  return (
    <dl className="numbers" aria-label={label}>
      {Object.entries(of).map(([name, count]) => (
        <div key={name} className="card number">
          <dt>{name}</dt>
          <dd>{count.toLocaleString(LOCALES)}</dd>
        </div>
      ))}
    </dl>
  );
}
