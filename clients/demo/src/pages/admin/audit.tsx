import { useSearchParams } from "react-router";
import { EVENT_TYPES, eventName } from "../../service/events";
import { usePages } from "../../service/hooks";
import type { AuditEvent } from "../../service/types";
import { Button } from "../../ui/button";
import { Events } from "../../ui/events";
import { Field, Form, Select } from "../../ui/form";
import { Page } from "../../ui/page";
import { query } from "./query";

const TYPES = [["", "Anything"] as const, ...EVENT_TYPES.map((type) => [type, eventName(type)] as const)];

export function AuditTrail() {
  const [search, setSearch] = useSearchParams();
  const userId = search.get("userId") ?? "";
  const type = search.get("type") ?? "";
  const events = usePages<AuditEvent>(`/api/admin/audit${query({ userId, type })}`);
  return (
    <Page title="Audit trail" lead="What happened to every account, the latest first.">
      <search className="card filter">
        <Form
          key={`${userId} ${type}`}
          submit="Filter"
          onSubmit={async (values) => setSearch(query({ userId: values.userId ?? "", type: values.type ?? "" }))}
          beside={(userId || type) && <Button onClick={() => setSearch("")}>Clear</Button>}
        >
          <div className="pair">
            <Field name="userId" label="User id" autoComplete="off" defaultValue={userId} optional />
            <Select name="type" label="What happened" options={TYPES} defaultValue={type} />
          </div>
        </Form>
      </search>
      <Events events={events} everybody />
    </Page>
  );
}
