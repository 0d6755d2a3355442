import { useEffect, useRef, useState } from "preact/hooks";
import { session, signIn, signOut } from "./api";
import { say } from "./parts";

// redeemLink signs in with the code of a one-time link, and takes it out of the address and its history.
export async function redeemLink() {
  const code = /^#\/link\/([\w-]+)$/.exec(location.hash)?.[1];
  if (!code) return;
  history.replaceState(null, "", location.pathname + "#/");
  dispatchEvent(new Event("hashchange"));
  try {
    await signIn({ code });
  } catch (e) {
    say((e as Error).message, true);
  }
}

// SignInAgain covers the page of a session that has ended. The page stays below it as it was, with what was being written.
export function SignInAgain() {
  const el = useRef<HTMLDialogElement>(null), open = () => el.current?.open || el.current?.showModal();
  useEffect(() => void open(), []);
  return <dialog ref={el} class="again" aria-label="Sign in again" onCancel={(e) => e.preventDefault()} onClose={open}><SignIn ended={session.get()?.user} /></dialog>;
}

// why a session has ended: it lasts as long as what one signed in with, twelve hours at most, and the server may end it before.
function why(): string {
  const until = new Date(session.get()?.until ?? 0);
  return until <= new Date() ? `the credential was good, or the session, until ${until.toLocaleTimeString("en", { hour12: false })}` : "the credential has been revoked, nobody used the session for an hour, or the server was restarted";
}

export function SignIn({ ended }: { ended?: string }) {
  const [way, setWay] = useState<"token" | "kubeconfig">("token");
  const [text, setText] = useState(""), [error, setError] = useState(""), [busy, setBusy] = useState(false);
  const submit = async (e: Event) => {
    e.preventDefault();
    setBusy(true);
    setError("");
    try {
      await signIn({ [way]: text });
    } catch (err) {
      setError((err as Error).message);
      setBusy(false);
    }
  };
  return (
    <main class="signin">
      <form onSubmit={submit}>
        <Mark />
        <h1>Skiff</h1>
        {ended && <p class="stale" role="alert">Your session has ended: {why()}. Sign in as {ended} to go on where you were; nothing that you wrote is lost.</p>}
        <div class="choice" role="radiogroup" aria-label="Sign in with">
          {(["token", "kubeconfig"] as const).map((w) => (
            <button type="button" role="radio" aria-checked={way === w} onClick={() => { setWay(w); setText(""); setError(""); }}>{w === "token" ? "Token" : "Kubeconfig"}</button>
          ))}
        </div>
        {way === "token"
          ? <label>Token<input name="token" type="password" autocomplete="off" autofocus required value={text} onInput={(e) => setText(e.currentTarget.value)} /></label>
          : <>
              <label>Kubeconfig<textarea name="kubeconfig" rows={7} spellcheck={false} required placeholder="Paste it, or choose the file" value={text} onInput={(e) => setText(e.currentTarget.value)} /></label>
              <input type="file" aria-label="Kubeconfig file" onChange={async (e) => setText((await e.currentTarget.files?.[0]?.text()) ?? "")} />
            </>}
        {error && <p class="fault" role="alert">{error}</p>}
        <button class="solid" disabled={busy || !text}>{busy ? "Signing in…" : "Sign in"}</button>
        {ended && <button type="button" onClick={() => void signOut()}>Leave the page instead</button>}
        <p class="quiet">
          {way === "token" ? <>A service account's: <code>kubectl create token NAME</code></> : <>The administrator's is <code>admin.kubeconfig</code> in the server's data dir.</>}
          <br />Or run <code>skiff dashboard</code> on the server, which prints a link.
        </p>
      </form>
    </main>
  );
}

export function Mark() {
  return <svg class="mark" viewBox="0 0 32 32" aria-hidden="true"><path d="M4 20h24l-4 7H8zM15 4v13H5zM18 8l9 9h-9z" /></svg>;
}
