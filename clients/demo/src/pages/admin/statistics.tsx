import { useAuth } from "gatepost-client/react";
import { useLoad } from "../../service/hooks";
import type { Statistics } from "../../service/types";
import { Button } from "../../ui/button";
import { Loading, Page } from "../../ui/page";

export function StatisticsPage() {
  const { auth } = useAuth();
  const loaded = useLoad<Statistics>("statistics", (signal) => auth.call("GET", "/api/admin/stats", undefined, { signal }));
  return (
    <Page title="Statistics" lead="As of now.">
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
            <Button onClick={loaded.reload}>Count again</Button>
          </>
        )}
      </Loading>
    </Page>
  );
}

function Numbers({ label, of }: { label: string; of: Record<string, number> }) {
  return (
    <dl className="numbers" aria-label={label}>
      {Object.entries(of).map(([name, count]) => (
        <div key={name} className="card number">
          <dt>{name}</dt>
          <dd>{count.toLocaleString("en")}</dd>
        </div>
      ))}
    </dl>
  );
}
