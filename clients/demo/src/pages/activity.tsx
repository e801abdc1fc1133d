import { usePages } from "../service/hooks";
import type { AuditEvent } from "../service/types";
import { Events } from "../ui/events";
import { Page } from "../ui/page";

export function Activity() {
  const events = usePages<AuditEvent>("/api/auth/events");
  return (
    <Page title="Activity" lead="What happened to your account, the latest first. It is kept for ninety days.">
      <Events events={events} />
    </Page>
  );
}
