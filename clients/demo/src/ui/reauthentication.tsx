/** Some things need a recent sign-in. Who is asked for one signs in again here, and what they wanted goes on. */
import { useAuth } from "gatepost-client/react";
import { createContext, type ReactNode, use, useCallback, useState } from "react";
import { hasCode } from "../service/problems";
import { Button } from "./button";
import { Dialog } from "./dialog";
import { Field, Form } from "./form";
import { ProviderButtons } from "./providers";

type Recently = <T>(action: () => Promise<T>) => Promise<T>;

interface Asked {
  done(): void;
  cancelled(reason: unknown): void;
  problem: unknown;
}

const RecentlyContext = createContext<Recently>((action) => action());

/** Runs an action; where it is refused for an old sign-in, asks for a new one and runs it again. */
export const useRecently = () => use(RecentlyContext);

export function Reauthentication({ children }: { children: ReactNode }) {
  const [asked, setAsked] = useState<Asked | null>(null);
  const recently = useCallback<Recently>(async (action) => {
    try {
      return await action();
    } catch (problem) {
      if (!hasCode(problem, "REAUTHENTICATION_REQUIRED")) throw problem;
      await new Promise<void>((done, cancelled) => setAsked({ done, cancelled, problem }));
      return await action();
    }
  }, []);
  return (
    <RecentlyContext value={recently}>
      {children}
      {asked && <SignInAgain asked={asked} onClose={() => setAsked(null)} />}
    </RecentlyContext>
  );
}

function SignInAgain({ asked, onClose }: { asked: Asked; onClose(): void }) {
  const { auth, user } = useAuth();
  const cancel = () => {
    onClose();
    asked.cancelled(asked.problem);
  };
  return (
    <Dialog title="Sign in again" onClose={cancel}>
      <p>This changes how you get into your account, and your sign-in was a while ago. Please show that it is you.</p>
      <Form
        submit="Continue"
        onSubmit={async ({ password = "" }) => {
          await auth.login({ email: user?.email ?? "", password });
          onClose();
          asked.done();
        }}
        place={(problem) => (problem.code === "INVALID_CREDENTIALS" ? { password: "That is not the password." } : undefined)}
        beside={<Button onClick={cancel}>Cancel</Button>}
      >
        <input type="text" name="username" autoComplete="username" defaultValue={user?.email} hidden readOnly />
        <Field name="password" label="Password" type="password" autoComplete="current-password" missing="Enter your password." />
      </Form>
      <ProviderButtons only={user?.identities.map(({ provider }) => provider) ?? []} redirectTo={location.href} />
    </Dialog>
  );
}
