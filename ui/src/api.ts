// Requests to the API server, as the user who has signed in here.
import { store } from "./store";

const PREFIX = "/ui/api";
const SECRET = "skiff.secret"; // in this origin's storage; the cookie that goes with it no script can read

export interface Cause { field?: string; message: string; reason?: string }

export class ApiError extends Error {
  constructor(readonly code: number, readonly reason: string, message: string, readonly causes: Cause[] = []) {
    super(message);
  }
}

export interface Session { cluster: string; user: string; groups: string[]; until: string }

// null: nobody is signed in; undefined: not known yet. When it has ended, it is still whose page this is, and the page waits for that user as it was.
export const session = store<Session | null | undefined>(undefined);
export const sessionEnded = store(false);

async function failure(res: Response): Promise<ApiError> {
  const text = await res.text().catch(() => "");
  try {
    const s = JSON.parse(text);
    return new ApiError(res.status, s.reason ?? "", s.message || res.statusText, s.details?.causes ?? []);
  } catch {
    return new ApiError(res.status, "", text.slice(0, 500) || res.statusText);
  }
}

async function send(url: string, init: RequestInit): Promise<Response> {
  const headers = new Headers(init.headers);
  const secret = localStorage.getItem(SECRET) ?? "";
  headers.set("X-Skiff-Secret", secret);
  let res: Response;
  try {
    res = await fetch(url, { ...init, headers, redirect: "error" });
  } catch (e) {
    if ((e as Error).name === "AbortError") throw e;
    throw new ApiError(0, "Unreachable", "the server does not answer");
  }
  if (res.ok) return res;
  const err = await failure(res);
  // What a former session asked for, and is refused by now, says nothing of the present one.
  if (err.code === 401 && session.get() && secret === localStorage.getItem(SECRET)) sessionEnded.set(true);
  throw err;
}

// signedInAgain waits for the user to come back after the session has ended.
export function signedInAgain(signal: AbortSignal): Promise<void> {
  return new Promise((back) => {
    const look = () => (!sessionEnded.get() || signal.aborted) && (forget(), signal.removeEventListener("abort", look), back());
    const forget = sessionEnded.follow(look);
    signal.addEventListener("abort", look);
    look();
  });
}

// checkSession finds out whether the session has ended: what is open already, a log or a shell, may not be told.
export const checkSession = () => send("/ui/session", {}).then(() => undefined, () => undefined);

export interface Options { accept?: string; type?: string; body?: unknown; signal?: AbortSignal }

export async function request(method: string, path: string, o: Options = {}): Promise<Response> {
  const headers: Record<string, string> = { Accept: o.accept ?? "application/json" };
  let body: string | undefined;
  if (o.body !== undefined) {
    headers["Content-Type"] = o.type ?? "application/json";
    body = typeof o.body === "string" ? o.body : JSON.stringify(o.body);
  }
  return send(PREFIX + path, { method, headers, body, signal: o.signal });
}

export async function get<T = any>(path: string, signal?: AbortSignal): Promise<T> {
  return (await request("GET", path, { signal })).json();
}

export const patch = (path: string, body: unknown, kind = "merge") =>
  request("PATCH", path, { body, type: `application/${kind === "json" ? "json-patch" : kind === "strategic" ? "strategic-merge-patch" : "merge-patch"}+json` });

// socket opens a WebSocket; browsers set no headers on one, so the secret travels among the protocols.
export function socket(path: string, protocol: string): WebSocket {
  const secret = localStorage.getItem(SECRET) ?? "";
  return new WebSocket(`wss://${location.host}${PREFIX}${path}`, [protocol, "skiff.secret." + secret]);
}

export async function resume() {
  try {
    session.set(await (await send("/ui/session", {})).json());
  } catch (e) {
    session.set(null);
    if ((e as ApiError).code !== 401) throw e;
  }
}

export async function signIn(how: { token?: string; kubeconfig?: string; code?: string }) {
  const res = await send("/ui/session", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(how) });
  const { secret, ...rest } = await res.json();
  localStorage.setItem(SECRET, secret);
  session.set(rest);
  sessionEnded.set(false);
}

export async function signOut() {
  await send("/ui/session", { method: "DELETE" }).catch(() => undefined);
  localStorage.removeItem(SECRET);
  sessionEnded.set(false);
  session.set(null);
}
