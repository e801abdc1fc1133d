import { returnTo } from "gatepost-client";
import { RequireAuth, useAuth } from "gatepost-client/react";
import type { ReactNode } from "react";
import { Navigate, Outlet, Route, Routes, useLocation } from "react-router";
import { Activity } from "./pages/activity";
import { AuditTrail } from "./pages/admin/audit";
import { StatisticsPage } from "./pages/admin/statistics";
import { UserDetail } from "./pages/admin/user";
import { Users } from "./pages/admin/users";
import { ApiKeys } from "./pages/api-keys";
import { ConfirmEmail } from "./pages/confirm-email";
import { Devices } from "./pages/devices";
import { NotAllowed, NotFound } from "./pages/not-found";
import { ForgotPassword, ResetPassword } from "./pages/passwords";
import { Profile } from "./pages/profile";
import { SignIn } from "./pages/sign-in";
import { SignUp } from "./pages/sign-up";
import { AppShell, GuestShell, WaitingShell } from "./ui/shell";
import { Splash } from "./ui/splash";

/** Every page. `/verify-email` and `/reset-password` are where the service's mails lead. */
export function App() {
  return (
    <Routes>
      <Route element={<GuestShell />}>
        <Route element={<Strangers />}>
          <Route path="/login" element={<SignIn />} />
          <Route path="/register" element={<SignUp />} />
          <Route path="/forgot-password" element={<ForgotPassword />} />
        </Route>
        <Route path="/reset-password" element={<ResetPassword />} />
        <Route path="/verify-email" element={<ConfirmEmail />} />
      </Route>
      <Route element={<Members />}>
        <Route path="/profile" element={<Profile />} />
        <Route path="/sessions" element={<Devices />} />
        <Route path="/api-keys" element={<ApiKeys />} />
        <Route path="/activity" element={<Activity />} />
        <Route path="/admin/users" element={<Permitted to="users:read" children={<Users />} />} />
        <Route path="/admin/users/:id" element={<Permitted to="users:read" children={<UserDetail />} />} />
        <Route path="/admin/statistics" element={<Permitted to="stats:read" children={<StatisticsPage />} />} />
        <Route path="/admin/audit" element={<Permitted to="audit:read" children={<AuditTrail />} />} />
      </Route>
      <Route path="/" element={<Start />} />
      <Route path="/admin" element={<Navigate to="/admin/users" replace />} />
      <Route path="*" element={<Elsewhere />} />
    </Routes>
  );
}

/** Pages of the signed-in. */
function Members() {
  return (
    <RequireAuth checking={<WaitingShell />}>
      <AppShell />
    </RequireAuth>
  );
}

/** Pages for those who are not signed in; who is goes on to where they wanted to be. */
function Strangers() {
  const { status } = useAuth();
  const { search } = useLocation();
  if (status === "checking") return <Splash />;
  if (status === "authenticated") return <Navigate to={returnTo("/profile", search)} replace />;
  return <Outlet />;
}

/** Members' pages that need a permission. The service decides; this spares people pages that would stay empty. */
function Permitted({ to, children }: { to: string; children: ReactNode }) {
  return (
    <RequireAuth permissions={[to]} forbidden={<NotAllowed />}>
      {children}
    </RequireAuth>
  );
}

/** The start is one's profile, or the sign-in; an `?error=` of a provider goes along. */
function Start() {
  const { status } = useAuth();
  const { search } = useLocation();
  if (status === "checking") return <WaitingShell />;
  return <Navigate to={`${status === "authenticated" ? "/profile" : "/login"}${search}`} replace />;
}

function Elsewhere() {
  const { status } = useAuth();
  if (status === "checking") return <WaitingShell />;
  if (status === "authenticated") return <AppShell children={<NotFound />} />;
  return <GuestShell children={<NotFound />} />;
}
