// The frame around every page: where one can go, which namespace counts, who one is.
import { useEffect, useRef, useState } from "preact/hooks";
import { checkSession, session, sessionEnded, signOut } from "./api";
import { discover, listPath, namespace } from "./kinds";
import { Addons } from "./pages/addons";
import { NodePage, Nodes } from "./pages/nodes";
import { ObjectPage, ResourceList, Resources } from "./pages/resources";
import { Overview } from "./pages/overview";
import { PodPage, Pods } from "./pages/pods";
import { ServicePage, Services } from "./pages/services";
import { Volumes } from "./pages/volumes";
import { WorkloadPage, Workloads } from "./pages/workloads";
import { Asked, Dialog, Said, collate, say, useKeys } from "./parts";
import { go, link, route } from "./router";
import { Mark, SignIn, SignInAgain } from "./signin";
import { kept, useStore } from "./store";
import { dropFeeds, useRows } from "./watch";
import { dropDrafts } from "./yaml";

const theme = kept("skiff.theme", "auto");
const paint = () => (document.documentElement.dataset.theme = theme.get());
theme.follow(paint);
paint();

// Where one can go: key after g, page, name, drawing.
const PLACES: [string, string, string, string][] = [
  ["o", "", "Overview", "M3 12l9-8 9 8v9h-6v-6H9v6H3z"],
  ["w", "workloads", "Workloads", "M4 4h7v7H4zM13 4h7v7h-7zM4 13h7v7H4zM16.5 13v7M13 16.5h7"],
  ["p", "pods", "Pods", "M12 3l8 4.5v9L12 21l-8-4.5v-9zM12 12l8-4.5M12 12v9M12 12L4 7.5"],
  ["s", "services", "Services", "M5 12h5M14 6h5M14 12h5M14 18h5M10 12l4-6M10 12h4M10 12l4 6"],
  ["n", "nodes", "Nodes", "M4 5h16v6H4zM4 13h16v6H4zM7 8h1M7 16h1"],
  ["v", "volumes", "Volumes", "M4 6c0-4 16-4 16 0v12c0 4-16 4-16 0zM4 6c0 4 16 4 16 0M4 12c0 4 16 4 16 0"],
  ["a", "addons", "Add-ons", "M9 4h6v4h5v12H4V8h5zM12 11v6M9 14h6"],
  ["r", "resources", "All resources", "M4 6h16M4 12h16M4 18h16"],
];

function page([name, ...rest]: string[]) {
  switch (name) {
    case "": return <Overview />;
    case "workloads": return <Workloads />;
    case "workload": return <WorkloadPage key={rest.join("/")} kind={rest[0]} ns={rest[1]} name={rest[2]} tab={rest[3] ?? ""} />;
    case "pods": return <Pods />;
    case "pod": return <PodPage key={rest.slice(0, 2).join("/")} ns={rest[0]} name={rest[1]} tab={rest[2] ?? ""} container={rest[3]} />;
    case "services": return <Services />;
    case "service": return <ServicePage key={rest.slice(0, 2).join("/")} ns={rest[0]} name={rest[1]} tab={rest[2] ?? ""} />;
    case "nodes": return <Nodes />;
    case "node": return <NodePage key={rest[0]} name={rest[0]} tab={rest[1] ?? ""} />;
    case "volumes": return <Volumes />;
    case "addons": return <Addons />;
    case "resources": return <Resources />;
    case "list": return <ResourceList key={rest.join("/")} group={rest[0]} version={rest[1]} plural={rest[2]} />;
    case "object": return <ObjectPage key={rest.join("/")} group={rest[0]} version={rest[1]} plural={rest[2]} ns={rest[3]} name={rest[4]} />;
    default: return <p class="quiet">There is no such page. <a href="#/">To the overview</a></p>;
  }
}

// NAMED says which part of a page's address is the name of what it shows.
const NAMED: Record<string, number> = { workload: 3, pod: 2, service: 2, node: 1, list: 3, object: 5 };

// under says which place a page belongs to.
const under = (name: string) => ({ workload: "workloads", pod: "pods", service: "services", node: "nodes", list: "resources", object: "resources" })[name] ?? name;

export function App() {
  const who = useStore(session);
  const ended = useStore(sessionEnded);
  return <>{who === undefined ? null : who === null ? <SignIn /> : <Signed key={who.user} />}{who && ended && <SignInAgain />}<Said /></>;
}

function Signed() {
  const at = useStore(route), who = useStore(session)!;
  const [help, setHelp] = useState(false), pending = useRef(0);
  useEffect(() => {
    discover().catch((e) => say((e as Error).message, true));
    return () => { dropFeeds(); dropDrafts(); };
  }, [who.user]);
  useEffect(() => { // so that tabs can be told apart
    const place = PLACES.find(([, name]) => name === at[0])?.[2];
    document.title = [place ?? at[NAMED[at[0]]] ?? "", who.cluster, "Skiff"].filter(Boolean).join(" · ");
  }, [at, who.cluster]);
  useEffect(() => { // a page that only waits hears nothing of a credential that expires or is revoked
    const id = setInterval(() => document.hidden || sessionEnded.get() || void checkSession(), 10_000);
    return () => clearInterval(id);
  }, []);
  const jumps = Object.fromEntries(PLACES.map(([key, name]) => [key, () => Date.now() - pending.current < 3000 && (pending.current = 0, go(name))]));
  useKeys({
    ...jumps, "?": () => setHelp(true), g: () => (pending.current = Date.now()),
    "/": () => document.querySelector<HTMLInputElement>("main .filter")?.focus(),
    t: () => theme.set(NEXT[theme.get()] ?? "auto"), Backspace: () => history.back(),
  });
  return (
    <div class="frame">
      <nav class="side" aria-label="Pages">
        <a class="brand" href="#/"><Mark /><span>{who.cluster}</span></a>
        {PLACES.map(([key, name, title, drawing]) => (
          <a href={link(name)} aria-current={under(at[0]) === name ? "page" : undefined} title={`${title} (g ${key})`}>
            <svg viewBox="0 0 24 24" aria-hidden="true"><path d={drawing} /></svg><span>{title}</span>
          </a>
        ))}
      </nav>
      <header class="top">
        <Namespaces />
        <span class="gap" />
        <button class="plain" title="Keys (?)" onClick={() => setHelp(true)}>?</button>
        <button class="plain" title={`Colours: ${theme.get()} (t)`} onClick={() => theme.set(NEXT[theme.get()] ?? "auto")}><Theme /></button>
        <span class="who" title={`${who.user}\n${who.groups.join("\n")}`}>{who.user.replace("system:serviceaccount:", "")}</span>
        <button class="plain" onClick={() => void signOut()}>Sign out</button>
      </header>
      <main>{page(at)}</main>
      <Asked />
      {help && <Help close={() => setHelp(false)} />}
    </div>
  );
}

const NEXT: Record<string, string> = { auto: "dark", dark: "light", light: "auto" };

function Theme() {
  const t = useStore(theme);
  return <span aria-label="Colours">{t === "dark" ? "●" : t === "light" ? "○" : "◐"}</span>;
}

function Namespaces() {
  const at = useStore(namespace), feed = useRows(listPath("Namespace"));
  const names = feed.list.map((r) => r.metadata.name).sort(collate);
  if (feed.error?.code === 403) {
    return <input class="ns" aria-label="Namespace" placeholder="namespace" value={at} onChange={(e) => namespace.set(e.currentTarget.value.trim())} />;
  }
  return (
    <select class="ns" aria-label="Namespace" value={at} onChange={(e) => namespace.set(e.currentTarget.value)}>
      <option value="">All namespaces</option>
      {at && !names.includes(at) && <option>{at}</option>}
      {names.map((n) => <option>{n}</option>)}
    </select>
  );
}

function Help({ close }: { close: () => void }) {
  const keys: [string, string][] = [
    ["/", "filter, or search a log"], ["j  k", "down and up in a table, also ↓ ↑ Home End"], ["Enter", "open"], ["Backspace", "back"], ["t", "colours"], ["Esc", "close, leave the filter"],
    ...PLACES.map(([key, , title]): [string, string] => [`g ${key}`, title]),
  ];
  return (
    <Dialog title="Keys" close={close}>
      <dl class="keys">{keys.map(([k, what]) => <div><dt><kbd>{k}</kbd></dt><dd>{what}</dd></div>)}</dl>
      <div class="buttons"><button class="solid" onClick={close}>Close</button></div>
    </Dialog>
  );
}
