import { createAuth } from "gatepost-client";
import { AuthProvider } from "gatepost-client/react";
import { StrictMode, type ReactNode } from "react";
import { createRoot } from "react-dom/client";
import { BrowserRouter, useNavigate } from "react-router";
import { App } from "./app";
import { loadConfig } from "./service/config";
import { LookoutContext } from "./service/hooks";
import { asking, Lookout } from "./service/reach";
import { Announcer } from "./ui/announcer";
import { Broken } from "./ui/broken";
import { keepFocus } from "./ui/focus";
import { Reauthentication } from "./ui/reauthentication";
import "./styles.css";

const place = document.getElementById("root") as HTMLElement;
const root = createRoot(place);
keepFocus(place);

try {
  const { authUrl } = await loadConfig();
  const auth = createAuth({ baseUrl: authUrl });
  const lookout = new Lookout(asking(authUrl));
  addEventListener("online", () => void lookout.look());

  const Providers = ({ children }: { children: ReactNode }) => {
    const navigate = useNavigate();
    return (
      <AuthProvider auth={auth} navigate={(to: string) => navigate(to, { replace: true })}>
        <LookoutContext value={lookout}>
          <Announcer>
            <Reauthentication>{children}</Reauthentication>
          </Announcer>
        </LookoutContext>
      </AuthProvider>
    );
  };

  root.render(
    <StrictMode>
      <BrowserRouter>
        <Providers>
          <Broken>
            <App />
          </Broken>
        </Providers>
      </BrowserRouter>
    </StrictMode>,
  );
} catch (error) {
  root.render(
    <main className="guest">
      <div className="guest-card" role="alert">
        <h1>This app is not set up</h1>
        <p>{error instanceof Error ? error.message : String(error)}</p>
      </div>
    </main>,
  );
}
