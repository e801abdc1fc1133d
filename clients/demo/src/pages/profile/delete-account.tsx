import { useAuth } from "gatepost-client/react";
import { useState } from "react";
import { useAnnounce } from "../../ui/announcer";
import { Button } from "../../ui/button";
import { Dialog } from "../../ui/dialog";
import { Field, Form } from "../../ui/form";
import { Card } from "../../ui/page";
import { useRecently } from "../../ui/reauthentication";

export function DeleteAccount() {
  const { auth, user } = useAuth();
  const recently = useRecently();
  const say = useAnnounce();
  const [open, setOpen] = useState(false);
  if (!user) return null;
  const linked = user.identities.length > 0;
  return (
    <Card title="Delete your account" lead="Your account, its devices and its API keys are gone at once, and for good." danger>
      <Button kind="danger" onClick={() => setOpen(true)}>
        Delete account
      </Button>
      {open && (
        <Dialog title="Delete your account?" onClose={() => setOpen(false)}>
          <p>
            This cannot be undone. Everything of <strong className="wrap">{user.email}</strong> is deleted now.
          </p>
          <Form
            submit="Delete for good"
            danger
            onSubmit={async ({ password }) => {
              await recently(() => auth.call("DELETE", "/api/auth/me", password ? { password } : {}));
              await auth.logout();
              say("Your account is deleted.");
            }}
            place={(problem) =>
              problem.code === "INVALID_CREDENTIALS" ? { password: "That is not your password." } : undefined
            }
            beside={<Button onClick={() => setOpen(false)}>Cancel</Button>}
          >
            <input type="text" name="username" autoComplete="username" defaultValue={user.email} hidden readOnly />
            <Field
              name="password"
              label="Password"
              type="password"
              autoComplete="current-password"
              missing="Enter your password."
              hint={linked ? "Leave it empty if you never had one." : undefined}
              optional={linked}
            />
          </Form>
        </Dialog>
      )}
    </Card>
  );
}
