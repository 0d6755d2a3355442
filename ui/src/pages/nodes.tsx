import { useMemo, useState } from "preact/hooks";
import { ApiError, patch, request } from "../api";
import { Events } from "../events";
import { age, bytes, cpu, nodeVerdict, quantity, requested, running } from "../format";
import { listPath, objectPath } from "../kinds";
import { METRICS, Plot, plotted, used, usePast, usePolled } from "../metrics";
import { Action, Bar, Col, Dialog, Dot, Facts, Fault, Heading, Labels, Loaded, Status, Table, Tabs } from "../parts";
import { go, link } from "../router";
import { useNow } from "../store";
import { Obj, useFeed, useObject } from "../watch";
import { Yaml } from "../yaml";
import { PodTable } from "./pods";

// Load of a node: what it has, what its pods asked for, what is used (where metrics are served).
export interface Load { cpu: Amount; memory: Amount; pods: Amount }
interface Amount { of: number; asked?: number; used?: number }

export function useLoads(nodes: Obj[], pods: Obj[]): Map<string, Load> {
  const metrics = usePolled<any>(`${METRICS}/nodes`);
  return useMemo(() => {
    const out = new Map<string, Load>();
    for (const n of nodes) {
      const a = n.status?.allocatable ?? {}, m = metrics.value?.items?.find((x: any) => x.metadata.name === n.metadata.name), u = m && used(m);
      out.set(n.metadata.name, { cpu: { of: quantity(a.cpu), asked: 0, used: u?.cpu }, memory: { of: quantity(a.memory), asked: 0, used: u?.memory }, pods: { of: quantity(a.pods), used: 0 } });
    }
    for (const p of pods) {
      const l = out.get(p.spec?.nodeName);
      if (!l || !running(p)) continue;
      l.cpu.asked! += requested(p, "cpu");
      l.memory.asked! += requested(p, "memory");
      l.pods.used!++;
    }
    return out;
  }, [nodes, pods, metrics.value]);
}

export function Gauge({ a, say }: { a?: Amount; say: (n: number) => string }) {
  if (!a) return null;
  const label = [a.used !== undefined && `${say(a.used)} used`, a.asked !== undefined && `${say(a.asked)} asked for`, `of ${say(a.of)}`].filter(Boolean).join(", ");
  return <span class="gauge"><Bar value={a.used} asked={a.asked} of={a.of} label={label} /><small>{a.used === undefined ? "–" : say(a.used)} / {say(a.of)}</small></span>;
}

const roles = (n: Obj) => Object.keys(n.metadata.labels ?? {}).filter((l) => l.startsWith("node-role.kubernetes.io/")).map((l) => l.split("/")[1]).join(", ");
const address = (n: Obj): string => (n.status?.addresses ?? []).find((a: any) => a.type === "InternalIP")?.address ?? "";

export function Nodes() {
  const feed = useFeed(listPath("Node")), loads = useLoads(feed.list, useFeed(listPath("Pod")).list);
  const cols: Col<Obj>[] = useMemo(() => [
    { name: "Name", width: "minmax(140px, 1.5fr)", sort: (n) => n.metadata.name, cell: (n) => <a href={link("node", n.metadata.name)}>{n.metadata.name}</a> },
    { name: "Status", width: "minmax(100px, 1fr)", sort: (n) => nodeVerdict(n).text, cell: (n) => <Status v={nodeVerdict(n)} /> },
    { name: "Roles", width: "minmax(80px, 1fr)", wide: true, sort: roles, cell: roles },
    { name: "CPU", width: "minmax(120px, 1.2fr)", cell: (n) => <Gauge a={loads.get(n.metadata.name)?.cpu} say={cpu} /> },
    { name: "Memory", width: "minmax(120px, 1.2fr)", wide: true, cell: (n) => <Gauge a={loads.get(n.metadata.name)?.memory} say={bytes} /> },
    { name: "Pods", width: "minmax(80px, 1fr)", wide: true, sort: (n) => loads.get(n.metadata.name)?.pods.used ?? 0, cell: (n) => `${loads.get(n.metadata.name)?.pods.used ?? 0} / ${loads.get(n.metadata.name)?.pods.of ?? 0}` },
    { name: "Address", width: "minmax(110px, 1fr)", wide: true, sort: address, cell: address },
    { name: "Version", width: "minmax(80px, 1fr)", wide: true, sort: (n) => n.status?.nodeInfo?.kubeletVersion ?? "", cell: (n) => n.status?.nodeInfo?.kubeletVersion },
    { name: "Age", width: "56px", sort: (n) => -Date.parse(n.metadata.creationTimestamp), cell: (n, now) => age(n.metadata.creationTimestamp, now) },
  ], [loads]);
  return <><h1>Nodes</h1><Loaded feed={feed}><Table rows={feed.list} cols={cols} open={(n) => go("node", n.metadata.name)} text={(n) => `${address(n)} ${roles(n)}`} /></Loaded></>;
}

export function NodePage({ name, tab }: { name: string; tab: string }) {
  const { object: n, error, state } = useObject(listPath("Node"), name), path = objectPath("Node", undefined, name), [draining, setDraining] = useState(false);
  if (!n) return error ? <Fault error={error} /> : state === "live" ? <div class="fault"><b>It is gone.</b> There is no node {name}.</div> : <p class="quiet">Loading…</p>;
  const cordoned = !!n.spec?.unschedulable;
  return (
    <>
      <Heading kind="Nodes" back="#/nodes" name={name}>
        <Status v={nodeVerdict(n)} />
        <Action label={cordoned ? "Uncordon" : "Cordon"} run={() => patch(path, { spec: { unschedulable: !cordoned } })} done={cordoned ? "New pods may come again" : "No new pods will come"} />
        <button class="danger" onClick={() => setDraining(true)}>Drain</button>
      </Heading>
      {draining && <Drain node={name} path={path} close={() => setDraining(false)} />}
      <Tabs of={[["", "State"], ["events", "Events"], ["yaml", "YAML"]]} at={tab} href={(t) => (t ? link("node", name, t) : link("node", name))} />
      {tab === "" && <NodeState n={n} />}
      {tab === "events" && <Events uid={name} ns="default" />}
      {tab === "yaml" && <Yaml path={path} />}
    </>
  );
}

function NodeState({ n }: { n: Obj }) {
  const pods = useFeed(listPath("Pod"), `fieldSelector=spec.nodeName%3D${encodeURIComponent(n.metadata.name)}`);
  const now = useNow(), loads = useLoads(useMemo(() => [n], [n]), pods.list), load = loads.get(n.metadata.name), v = nodeVerdict(n), info = n.status?.nodeInfo ?? {};
  const metrics = usePolled<any>(`${METRICS}/nodes/${n.metadata.name}`).value, u = used(metrics), past = usePast(n.metadata.name, "only=node");
  const before = useMemo(() => (["cpu", "memory"] as const).map((what) => plotted(past, what, [() => true])), [past]);
  return (
    <>
      {v.why && <section class={`explained ${v.tone}`}><p>{v.why}</p></section>}
      <div class="cards">
        <article class="card"><h3>CPU</h3><Gauge a={load?.cpu} say={cpu} /><p class="quiet">{cpu(load?.cpu.asked ?? 0)} asked for</p></article>
        <article class="card"><h3>Memory</h3><Gauge a={load?.memory} say={bytes} /><p class="quiet">{bytes(load?.memory.asked ?? 0)} asked for</p></article>
        <article class="card"><h3>Pods</h3><Gauge a={load?.pods} say={String} /></article>
      </div>
      {(metrics || past) && <div class="plots"><Plot title="CPU" names={["used"]} at={metrics?.timestamp} values={[u.cpu]} before={before[0]} say={cpu} limit={load?.cpu.of} /><Plot title="Memory" names={["used"]} at={metrics?.timestamp} values={[u.memory]} before={before[1]} say={bytes} limit={load?.memory.of} /></div>}
      <Facts of={[
        ["Address", address(n)], ["Pod addresses", n.spec?.podCIDR], ["System", info.osImage], ["Kernel", info.kernelVersion], ["Runtime", info.containerRuntimeVersion], ["Kubelet", info.kubeletVersion],
        ["Age", age(n.metadata.creationTimestamp, now)], ["Taints", (n.spec?.taints ?? []).map((t: any) => `${t.key}${t.value ? "=" + t.value : ""}:${t.effect}`).join(", ")], ["Labels", <Labels of={n.metadata.labels} />],
      ]} />
      <h2>Conditions</h2>
      <ul class="conditions">{(n.status?.conditions ?? []).map((c: any) => <li><Dot tone={(c.status === "True") === (c.type === "Ready") ? "good" : "bad"} /> <b>{c.type}</b> {c.status} {c.message} <time>{age(c.lastTransitionTime, now)}</time></li>)}</ul>
      <h2>Pods</h2>
      <PodTable pods={pods.list} withNode={false} short />
    </>
  );
}

type Left = { pod: Obj; state: string };

// Drain cordons, then evicts all at once what may be evicted, and waits where a disruption budget says so, which holds nothing else up.
function Drain({ node, path, close }: { node: string; path: string; close: () => void }) {
  const [left, setLeft] = useState<Left[]>(), [error, setError] = useState<ApiError>(), [stop] = useState(() => new AbortController());
  const pods = useFeed(listPath("Pod"), `fieldSelector=spec.nodeName%3D${encodeURIComponent(node)}`);
  const stays = (p: Obj) => p.metadata.annotations?.["kubernetes.io/config.mirror"] !== undefined || p.metadata.ownerReferences?.some((r) => r.kind === "DaemonSet");
  const goes = pods.list.filter((p) => !stays(p) && running(p)), bare = goes.filter((p) => !p.metadata.ownerReferences?.length);
  const run = async () => {
    const list: Left[] = goes.map((pod) => ({ pod, state: "waiting" })), show = () => setLeft([...list]);
    show();
    try {
      await patch(path, { spec: { unschedulable: true } });
    } catch (e) {
      return setError(e as ApiError);
    }
    await Promise.all(list.map((one) => evict(one, show, stop.signal).catch((e) => { one.state = "refused"; show(); setError(e as ApiError); })));
  };
  return (
    <Dialog title={`Drain ${node}`} close={() => { stop.abort(); close(); }}>
      {!left && <><p>No new pods will come, and {goes.length} pods are evicted, as far as disruption budgets allow. {pods.list.filter(stays).length} that belong to the node stay.</p>
        {bare.length > 0 && <p class="fault">{bare.length} have nobody who makes them anew elsewhere: {bare.map((p) => p.metadata.name).join(", ")}</p>}</>}
      {left && <ul class="plainlist scroll">{left.map((l) => <li><Dot tone={l.state === "evicted" ? "good" : "wait"} /> {l.pod.metadata.namespace}/{l.pod.metadata.name} <small>{l.state}</small></li>)}{left.length === 0 && <li>Nothing was left to evict.</li>}</ul>}
      {error && <Fault error={error} />}
      <div class="buttons"><button onClick={() => { stop.abort(); close(); }}>{left ? "Close" : "Cancel"}</button>{!left && <button class="danger solid" onClick={() => void run()}>Drain</button>}</div>
    </Dialog>
  );
}

async function evict(one: Left, show: () => void, signal: AbortSignal) {
  const { namespace, name } = one.pod.metadata;
  while (!signal.aborted) {
    try {
      await request("POST", objectPath("Pod", namespace, name) + "/eviction", { body: { apiVersion: "policy/v1", kind: "Eviction", metadata: { namespace, name } } });
      one.state = "evicted";
      return show();
    } catch (e) {
      const err = e as ApiError;
      if (err.code === 404) { one.state = "evicted"; return show(); }
      if (err.code !== 429) throw e;
      one.state = err.causes[0]?.message ?? "a disruption budget makes it wait";
      show();
      await new Promise((r) => setTimeout(r, 3000));
    }
  }
}
