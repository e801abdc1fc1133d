import type { User } from "gatepost-client";
import { useAuth } from "gatepost-client/react";
import { Link, useNavigate, useParams } from "react-router";
import { useLoad } from "../../service/hooks";
import { useAnnounce } from "../../ui/announcer";
import { ConfirmButton } from "../../ui/dialog";
import { Checks, Form } from "../../ui/form";
import { Card, Loading, Page } from "../../ui/page";
import { Person } from "../../ui/person";
import { Time } from "../../ui/time";
import { useRoles } from "./roles";
import { State } from "./users";

export function UserDetail() {
  const { id = "" } = useParams();
  const { auth } = useAuth();
  const path = `/api/admin/users/${encodeURIComponent(id)}`;
  const loaded = useLoad(path, async (signal) => (await auth.call<{ user: User }>("GET", path, undefined, { signal })).user);
  return (
    <Page title={loaded.data?.email ?? "User"} lead={<Link to="/admin/users">All users</Link>}>
      <Loading loaded={loaded} rows={6}>
        {(user) => <Detail user={user} path={path} onChange={loaded.set} />}
      </Loading>
    </Page>
  );
}

function Detail({ user, path, onChange }: { user: User; path: string; onChange(user: User): void }) {
  const { auth, user: me } = useAuth();
  const say = useAnnounce();
  const navigate = useNavigate();
  const roles = useRoles();
  const mayWrite = me?.permissions.includes("users:write") ?? false;

  const change = async (changes: Partial<Pick<User, "roles" | "active" | "emailVerified">>, told: string) => {
    const answer = await auth.call<{ user: User }>("PATCH", path, changes);
    onChange(answer.user);
    if (user.id === me?.id) await auth.user();
    say(told);
  };

  return (
    <>
      <Card title="Account">
        <div className="who">
          <Person user={user} />
          <div>
            <p className="who-name wrap">{user.name ?? user.email}</p>
            <p>
              <State user={user} />
            </p>
          </div>
        </div>
        <dl className="facts">
          <dt>Id</dt>
          <dd>
            <code className="wrap">{user.id}</code>
          </dd>
          <dt>Email</dt>
          <dd className="wrap">
            {user.email}, {user.emailVerified ? "verified" : "not verified"}
          </dd>
          <dt>Signs in with</dt>
          <dd>{user.identities.map(({ provider }) => provider).join(", ") || "a password"}</dd>
          <dt>Created</dt>
          <dd>
            <Time at={user.createdAt} plain />
          </dd>
          <dt>Last sign-in</dt>
          <dd>
            <Time at={user.lastLoginAt} />
          </dd>
          <dt>Permissions</dt>
          <dd className="tags">
            {user.permissions.map((permission) => (
              <span key={permission} className="tag">
                {permission}
              </span>
            ))}
          </dd>
        </dl>
        {me?.permissions.includes("audit:read") && (
          <p>
            <Link to={`/admin/audit?userId=${encodeURIComponent(user.id)}`}>What happened to this account</Link>
          </p>
        )}
      </Card>
      {mayWrite && (
        <>
          <Card title="Roles" lead="In force at once. You cannot give what you may not do yourself.">
            <Form
              key={user.roles.join()}
              submit="Save roles"
              onSubmit={(_, form) =>
                change({ roles: new FormData(form).getAll("roles").map(String) }, "The roles are saved.")
              }
              place={(problem) => {
                const said = problem.errors.find(({ field }) => field === "roles");
                return said ? { roles: `The roles ${said.message}.` } : undefined;
              }}
            >
              <Checks
                name="roles"
                legend="Roles of this account"
                options={[...new Set([...roles, ...user.roles])]}
                chosen={user.roles}
              />
            </Form>
          </Card>
          <Card title="Access">
            <ul className="rows">
              <li className="row">
                <div className="row-text">
                  <p className="row-title">Email {user.emailVerified ? "verified" : "not verified"}</p>
                  <p className="muted">Vouch for the address, or have it proved anew.</p>
                </div>
                <ConfirmButton
                  title={user.emailVerified ? "Withdraw the verification?" : "Vouch for this email?"}
                  explanation={
                    user.emailVerified ? "The owner has to prove it again." : `You know that ${user.email} belongs to this person.`
                  }
                  confirm={user.emailVerified ? "Withdraw" : "Vouch for it"}
                  action={() =>
                    change(
                      { emailVerified: !user.emailVerified },
                      user.emailVerified ? "The email has to be proved again." : "The email is verified.",
                    )
                  }
                >
                  {user.emailVerified ? "Withdraw verification" : "Mark as verified"}
                </ConfirmButton>
              </li>
              <li className="row">
                <div className="row-text">
                  <p className="row-title">Sessions</p>
                  <p className="muted">End every session of this account now.</p>
                </div>
                <ConfirmButton
                  title="Sign this person out everywhere?"
                  explanation="Every device has to sign in again."
                  confirm="Sign out everywhere"
                  action={async () => {
                    await auth.call("POST", `${path}/logout`);
                    say("Every session is ended.");
                    if (user.id === me?.id) await auth.user();
                  }}
                >
                  Sign out everywhere
                </ConfirmButton>
              </li>
              {user.id === me?.id ? (
                <li className="row">
                  <p className="muted">
                    This account is yours: delete it in <Link to="/profile">your profile</Link>, with your password.
                  </p>
                </li>
              ) : (
                <>
                  <li className="row">
                    <div className="row-text">
                      <p className="row-title">{user.active ? "Account enabled" : "Account disabled"}</p>
                      <p className="muted">A disabled account keeps its data and cannot sign in.</p>
                    </div>
                    <ConfirmButton
                      kind={user.active ? "danger" : "plain"}
                      title={user.active ? "Disable this account?" : "Enable this account?"}
                      explanation={user.active ? "All its sessions end at once and its API keys are refused." : "It can sign in again."}
                      confirm={user.active ? "Disable" : "Enable"}
                      action={() => change({ active: !user.active }, user.active ? "The account is disabled." : "The account is enabled.")}
                    >
                      {user.active ? "Disable account" : "Enable account"}
                    </ConfirmButton>
                  </li>
                  <li className="row">
                    <div className="row-text">
                      <p className="row-title">Delete</p>
                      <p className="muted">Everything but the audit trail is gone at once.</p>
                    </div>
                    <ConfirmButton
                      kind="danger"
                      title="Delete this account?"
                      explanation={`Everything of ${user.email} is deleted now. This cannot be undone.`}
                      confirm="Delete for good"
                      action={async () => {
                        await auth.call("DELETE", path);
                        say(`${user.email} is deleted.`);
                        navigate("/admin/users");
                      }}
                    >
                      Delete account
                    </ConfirmButton>
                  </li>
                </>
              )}
            </ul>
          </Card>
        </>
      )}
    </>
  );
}
