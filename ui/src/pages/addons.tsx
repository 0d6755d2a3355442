// Add-ons: what the cluster has or has not, why one is not well, and the switch for each.
import { useMemo } from "preact/hooks";
import { patch } from "../api";
import { Tone, age } from "../format";
import { Kind, kinds, pathOf } from "../kinds";
import { Action, Col, Loaded, Status, Table } from "../parts";
import { go, link } from "../router";
import { useStore } from "../store";
import { Obj, useFeed } from "../watch";

export function Addons() {
  const all = useStore(kinds), k = all.find((x) => x.kind === "Addon");
  return <><h1>Add-ons</h1>{k ? <List k={k} /> : <p class="quiet">{all.length ? "This server does not manage add-ons: it serves no kind Addon." : "Loading…"}</p>}</>;
}

const TONES: Record<string, Tone> = { Ready: "good", Failed: "bad", Disabled: "idle" };
const state = (a: Obj): string => a.status?.state ?? "Waiting";
const about = (a: Obj): string => (state(a) !== "Ready" && a.status?.message) || (a.status?.description ?? a.spec?.description ?? "");
const where = (k: Kind, a: Obj) => [k.group, k.version, k.plural, "-", a.metadata.name];

function List({ k }: { k: Kind }) {
  const feed = useFeed(pathOf(k));
  const cols: Col<Obj>[] = useMemo(() => [
    { name: "Name", width: "minmax(120px, 1fr)", sort: (a) => a.metadata.name, cell: (a) => <a href={link("object", ...where(k, a))}>{a.metadata.name}</a> },
    { name: "State", width: "minmax(110px, 1fr)", sort: state, cell: (a) => <Status v={{ text: state(a), tone: TONES[state(a)] ?? "wait", why: a.status?.message }} /> },
    { name: "What it is, or what is wrong", width: "minmax(200px, 4fr)", wide: true, cell: (a) => <span title={about(a)}>{about(a)}</span> },
    { name: "Objects", width: "70px", wide: true, sort: (a) => a.status?.applied?.length ?? 0, cell: (a) => a.status?.applied?.length || "" },
    { name: "Age", width: "56px", wide: true, sort: (a) => -Date.parse(a.metadata.creationTimestamp), cell: (a, now) => age(a.metadata.creationTimestamp, now) },
    { name: "", width: "90px", cell: (a) => <Switch k={k} a={a} /> },
  ], [k]);
  const failed = feed.list.filter((a) => state(a) === "Failed" || (state(a) !== "Ready" && a.status?.message && a.spec?.enabled));
  return ( // what comes and goes stands below, so that no switch moves away under a finger
    <Loaded feed={feed}>
      <Table rows={feed.list} cols={cols} open={(a) => go("object", ...where(k, a))} text={(a) => `${state(a)} ${about(a)}`} empty="No add-ons." />
      {failed.map((a) => <section class={`explained ${TONES[state(a)] ?? "wait"}`}><p><a href={link("object", ...where(k, a))}>{a.metadata.name}</a> <Status v={{ text: state(a), tone: TONES[state(a)] ?? "wait" }} /> {a.status?.message}</p></section>)}
    </Loaded>
  );
}

function Switch({ k, a }: { k: Kind; a: Obj }) {
  const on = a.spec?.enabled !== false, name = a.metadata.name;
  const ask = !on ? undefined : name === "dashboard" ? "Disable the dashboard? This page will be gone; 'skiff addon enable dashboard' brings it back." : `Disable ${name}, and remove all that it brought?`;
  return <Action label={on ? "Disable" : "Enable"} ask={ask} run={() => patch(pathOf(k, undefined, name), { spec: { enabled: !on } })} done={on ? `${name} is being taken away` : `${name} is being brought`} />;
}
