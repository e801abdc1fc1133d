import { useAuth } from "gatepost-client/react";
import { useEffect, useRef, useState } from "react";
import { useLoad } from "../service/hooks";
import type { ApiKey, NewApiKey, Page as Listed } from "../service/types";
import { useAnnounce } from "../ui/announcer";
import { Button } from "../ui/button";
import { ConfirmButton } from "../ui/dialog";
import { Checks, Field, Form, Select } from "../ui/form";
import { Card, Loading, Page } from "../ui/page";
import { Time } from "../ui/time";

const DAY = 86_400;
const LIVES = [
  [String(7 * DAY), "in 7 days"],
  [String(30 * DAY), "in 30 days"],
  [String(90 * DAY), "in 90 days"],
  [String(365 * DAY), "in a year"],
  ["", "never"],
] as const;

export function ApiKeys() {
  const { auth, user } = useAuth();
  const say = useAnnounce();
  const keys = useLoad<Listed<ApiKey>>("keys", (signal) => auth.call("GET", "/api/auth/api-keys", undefined, { signal }));
  const [made, setMade] = useState<NewApiKey | null>(null);
  return (
    <Page title="API keys" lead="For programs that call in your name. A key can do what you choose here, and never more than you.">
      {made && <Made key={made.id} made={made} onDone={() => setMade(null)} />}
      <Card title="New key">
        <Form
          submit="Create key"
          onSubmit={async ({ name, expiresIn }, form) => {
            const permissions = new FormData(form).getAll("permissions");
            const wanted = { name, permissions, ...(expiresIn && { expiresIn: Number(expiresIn) }) };
            setMade(await auth.call<NewApiKey>("POST", "/api/auth/api-keys", wanted));
            form.reset();
            keys.reload();
          }}
        >
          <div className="pair">
            <Field name="name" label="Name" autoComplete="off" maxLength={100} missing="Give it a name to know it by." />
            <Select name="expiresIn" label="Expires" options={LIVES} defaultValue={String(30 * DAY)} />
          </div>
          <Checks
            name="permissions"
            legend="Permissions"
            options={user?.permissions ?? []}
            hint="Without any, a key says who you are and does nothing else."
          />
        </Form>
      </Card>
      <Card title="Your keys">
        <Loading loaded={keys}>
          {({ items }) =>
            items.length ? (
              <ul className="rows">
                {items.map((key) => (
                  <li key={key.id} className="row">
                    <div className="row-text">
                      <p className="row-title">
                        {key.name} <code>{key.prefix}…</code>
                      </p>
                      <p className="muted">
                        Made <Time at={key.createdAt} /> · {key.lastUsedAt ? "used " : "never used"}
                        {key.lastUsedAt && <Time at={key.lastUsedAt} />} · {key.expiresAt ? "expires " : "never expires"}
                        {key.expiresAt && <Time at={key.expiresAt} />}
                      </p>
                      <p className="tags">
                        {key.permissions.length ? (
                          key.permissions.map((permission) => (
                            <span key={permission} className="tag">
                              {permission}
                            </span>
                          ))
                        ) : (
                          <span className="muted">no permissions</span>
                        )}
                      </p>
                    </div>
                    <ConfirmButton
                      title={`Revoke ${key.name}?`}
                      explanation="Programs that use it are refused at once. This cannot be undone."
                      confirm="Revoke"
                      kind="danger"
                      aria-label={`Revoke ${key.name}`}
                      action={async () => {
                        await auth.call("DELETE", `/api/auth/api-keys/${encodeURIComponent(key.id)}`);
                        if (made?.id === key.id) setMade(null);
                        say(`${key.name} is revoked.`);
                        keys.reload();
                      }}
                    >
                      Revoke
                    </ConfirmButton>
                  </li>
                ))}
              </ul>
            ) : (
              <p className="muted">You have no keys.</p>
            )
          }
        </Loading>
      </Card>
    </Page>
  );
}

/** The one time that the key is shown. */
function Made({ made, onDone }: { made: NewApiKey; onDone(): void }) {
  const heading = useRef<HTMLHeadingElement>(null);
  const text = useRef<HTMLInputElement>(null);
  const [copied, setCopied] = useState(false);
  useEffect(() => heading.current?.focus(), []);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(made.apiKey);
      setCopied(true);
    } catch {
      text.current?.select(); // not allowed to: Ctrl+C does it
    }
  };
  return (
    <section className="card card-good" aria-labelledby="made">
      <h2 id="made" ref={heading} tabIndex={-1}>
        Copy your key now
      </h2>
      <p>
        <strong>{made.name}</strong> is shown this once. We keep no copy, only a digest to know it by.
      </p>
      <div className="with-button">
        <input ref={text} className="code" readOnly value={made.apiKey} aria-label="Your new API key" />
        <Button kind="primary" onClick={copy}>
          {copied ? "Copied" : "Copy"}
        </Button>
      </div>
      <div className="actions">
        <Button onClick={onDone}>I have kept it</Button>
      </div>
      <span className="unseen" role="status">
        {copied ? "Copied" : ""}
      </span>
    </section>
  );
}
