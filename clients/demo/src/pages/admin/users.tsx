import type { User } from "gatepost-client";
import { Link, useSearchParams } from "react-router";
import { usePages } from "../../service/hooks";
import { Button } from "../../ui/button";
import { Field, Form, Select } from "../../ui/form";
import { More } from "../../ui/more";
import { Loading, Page } from "../../ui/page";
import { Time } from "../../ui/time";
import { query } from "./query";
import { useRoles } from "./roles";

export function Users() {
  const [search, setSearch] = useSearchParams();
  const email = search.get("email") ?? "";
  const role = search.get("role") ?? "";
  const roles = useRoles().map((name) => [name, name] as const);
  const users = usePages<User>(`/api/admin/users${query({ email, role })}`);
  return (
    <Page title="Users" lead="Accounts, the newest first.">
      <search className="card filter">
        <Form
          key={`${email} ${role} ${roles.length}`}
          submit="Filter"
          onSubmit={async (values) => setSearch(query({ email: values.email ?? "", role: values.role ?? "" }))}
          beside={(email || role) && <Button onClick={() => setSearch("")}>Clear</Button>}
        >
          <div className="pair">
            <Field name="email" label="Email" type="email" autoComplete="off" defaultValue={email} hint="The whole address." optional />
            <Select name="role" label="Role" options={[["", "Any role"], ...roles]} defaultValue={role} />
          </div>
        </Form>
      </search>
      <Loading loaded={users} rows={6}>
        {({ items, nextCursor }) => (
          <>
            {items.length ? (
              <div className="card table-card">
                <table className="cards">
                  <caption className="unseen">Users</caption>
                  <thead>
                    <tr>
                      <th scope="col">Email</th>
                      <th scope="col">Name</th>
                      <th scope="col">Roles</th>
                      <th scope="col">State</th>
                      <th scope="col">Last sign-in</th>
                    </tr>
                  </thead>
                  <tbody>
                    {items.map((user) => (
                      <tr key={user.id}>
                        <th scope="row" data-label="Email">
                          <Link to={`/admin/users/${user.id}`} className="wrap">
                            {user.email}
                          </Link>
                        </th>
                        <td data-label="Name" className="wrap">
                          {user.name ?? <span className="muted">none</span>}
                        </td>
                        <td data-label="Roles">{user.roles.join(", ")}</td>
                        <td data-label="State">
                          <State user={user} />
                        </td>
                        <td data-label="Last sign-in" className="muted nowrap">
                          <Time at={user.lastLoginAt} />
                        </td>
                      </tr>
                    ))}
                  </tbody>
                </table>
              </div>
            ) : (
              <p className="card muted">Nobody fits that.</p>
            )}
            {nextCursor && <More more={users.more} />}
          </>
        )}
      </Loading>
    </Page>
  );
}

export function State({ user }: { user: User }) {
  if (!user.active) return <span className="badge badge-bad">disabled</span>;
  if (!user.emailVerified) return <span className="badge badge-warn">not verified</span>;
  return <span className="badge badge-good">active</span>;
}
