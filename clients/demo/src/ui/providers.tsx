import type { Provider } from "gatepost-client";
import { useAuth } from "gatepost-client/react";
import { useState } from "react";
import { useLoad } from "../service/hooks";
import { explain } from "../service/problems";
import { Button } from "./button";

export function useProviders(): Provider[] {
  const { auth } = useAuth();
  return useLoad("providers", () => auth.providers()).data ?? [];
}

/** One button for each provider that the service knows; below everything else, so that nothing moves when they come. */
export function ProviderButtons({ only, redirectTo }: { only?: readonly string[]; redirectTo: string }) {
  const { auth } = useAuth();
  const [leaving, setLeaving] = useState<string | null>(null);
  const [error, setError] = useState<string | null>(null);
  const providers = useProviders().filter(({ name }) => !only || only.includes(name));
  if (!providers.length) return null;
  const leave = async (name: string) => {
    setLeaving(name);
    setError(null);
    try {
      const back = new URL(redirectTo);
      back.searchParams.delete("error"); // of the last try
      await auth.signInWith(name, { redirectTo: back.href });
    } catch (thrown) {
      setError(explain(thrown));
      setLeaving(null);
    }
  };
  return (
    <div className="providers">
      <p className="or">
        <span>or</span>
      </p>
      <div role="alert">{error && <p className="notice notice-danger">{error}</p>}</div>
      {providers.map(({ name, displayName }) => (
        <Button key={name} busy={leaving === name} onClick={() => leave(name)}>
          Continue with {displayName}
        </Button>
      ))}
    </div>
  );
}
