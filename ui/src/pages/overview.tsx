import { useMemo } from "preact/hooks";
import { EventList, eventTime } from "../events";
import { Verdict, bytes, cpu, nodeVerdict, podVerdict, workloadVerdict } from "../format";
import { listPath, namespace } from "../kinds";
import { Dot, Loaded, Status } from "../parts";
import { link } from "../router";
import { useStore } from "../store";
import { Obj, useFeed } from "../watch";
import { Gauge, Load, useLoads } from "./nodes";

const WORKLOADS = ["Deployment", "StatefulSet", "DaemonSet", "Job"];
interface Trouble { kind: string; name: string; ns?: string; href: string; v: Verdict }

export function Overview() {
  const ns = useStore(namespace);
  const nodes = useFeed(listPath("Node")), pods = useFeed(listPath("Pod", ns)), events = useFeed(listPath("Event", ns), "fieldSelector=type%3DWarning");
  const workloads = WORKLOADS.map((k) => useFeed(listPath(k, ns)));
  const loads = useLoads(nodes.list, useFeed(listPath("Pod")).list), all = total([...loads.values()]);
  const trouble = useMemo(() => troubles(nodes.list, pods.list, workloads.map((w) => w.list)), [nodes.list, pods.list, ...workloads.map((w) => w.list)]);
  const tally = useMemo(() => tallied(pods.list), [pods.list]);
  const recent = useMemo(() => [...events.list].sort((a, b) => Date.parse(eventTime(b)) - Date.parse(eventTime(a))).slice(0, 12), [events.list]);
  const known = [nodes, pods, ...workloads].every((f) => f.state === "live" || f.state === "retrying");
  const count = workloads.reduce((n, w) => n + w.list.length, 0);
  return (
    <>
      <h1>Overview</h1>
      <div class="cards summary">
        <article class="card"><h3><a href="#/nodes">Nodes</a></h3><p class="figure">{nodes.list.length}</p><p class="quiet">{nodes.list.filter((n) => nodeVerdict(n).text !== "NotReady").length} ready</p></article>
        <article class="card"><h3><a href="#/pods">Pods</a></h3><p class="figure">{pods.list.length}</p><p class="tally">{tally.map(([tone, n, what]) => n > 0 && <span><Dot tone={tone} /> {n} {what}</span>)}</p></article>
        <article class="card"><h3><a href="#/workloads">Workloads</a></h3><p class="figure">{count}</p><p class="quiet">{trouble.filter((t) => WORKLOADS.includes(t.kind)).length} not well</p></article>
        {all && <article class="card"><h3>CPU</h3><p class="figure">{all.cpu.used === undefined ? "–" : cpu(all.cpu.used)}<small> of {cpu(all.cpu.of)}</small></p><Gauge a={all.cpu} say={cpu} /></article>}
        {all && <article class="card"><h3>Memory</h3><p class="figure">{all.memory.used === undefined ? "–" : bytes(all.memory.used)}<small> of {bytes(all.memory.of)}</small></p><Gauge a={all.memory} say={bytes} /></article>}
      </div>
      <h2>{trouble.length ? `${trouble.length} ${trouble.length === 1 ? "thing needs" : "things need"} attention` : known ? "Everything is well" : "Needs attention"}</h2>
      <Loaded feed={pods}>
        {trouble.length > 0 && <ul class="troubles">{trouble.slice(0, 30).map((t) => (
          <li><span class="kind">{t.kind}</span><div><a href={t.href}>{t.ns ? `${t.ns}/` : ""}{t.name}</a> <Status v={t.v} /><p>{t.v.why}</p></div></li>
        ))}</ul>}
        {trouble.length > 30 && <p class="quiet">…and {trouble.length - 30} more: <a href="#/pods">all pods</a>, those in trouble first when sorted by status.</p>}
      </Loaded>
      <h2>Nodes</h2>
      <Loaded feed={nodes}><div class="cards">{nodes.list.slice(0, 24).map((n) => (
        <article class="card node"><h3><a href={link("node", n.metadata.name)}>{n.metadata.name}</a> <Status v={nodeVerdict(n)} /></h3>
          <dl><div><dt>CPU</dt><dd><Gauge a={loads.get(n.metadata.name)?.cpu} say={cpu} /></dd></div><div><dt>Memory</dt><dd><Gauge a={loads.get(n.metadata.name)?.memory} say={bytes} /></dd></div><div><dt>Pods</dt><dd><Gauge a={loads.get(n.metadata.name)?.pods} say={String} /></dd></div></dl></article>
      ))}</div>{nodes.list.length > 24 && <p class="quiet">…and {nodes.list.length - 24} more: <a href="#/nodes">all nodes</a></p>}</Loaded>
      <h2>Warnings</h2>
      <Loaded feed={events}><EventList events={recent} about /></Loaded>
    </>
  );
}

function troubles(nodes: Obj[], pods: Obj[], workloads: Obj[][]): Trouble[] {
  const out: Trouble[] = nodes.map((n) => ({ kind: "Node", name: n.metadata.name, href: link("node", n.metadata.name), v: nodeVerdict(n) })).filter((t) => t.v.tone === "bad");
  workloads.forEach((list, i) => {
    for (const o of list) {
      const v = workloadVerdict(o, WORKLOADS[i]), at = o.metadata;
      if (v.tone === "bad") out.push({ kind: WORKLOADS[i], name: at.name, ns: at.namespace, href: link("workload", WORKLOADS[i], at.namespace!, at.name), v });
    }
  });
  for (const p of pods) {
    const v = podVerdict(p);
    if (v.tone === "bad") out.push({ kind: "Pod", name: p.metadata.name, ns: p.metadata.namespace, href: link("pod", p.metadata.namespace!, p.metadata.name), v });
  }
  return out;
}

function tallied(pods: Obj[]): ["good" | "wait" | "bad" | "idle", number, string][] {
  const n = { good: 0, wait: 0, bad: 0, idle: 0 };
  for (const p of pods) n[podVerdict(p).tone]++;
  return [["good", n.good, "running"], ["wait", n.wait, "on the way"], ["bad", n.bad, "in trouble"], ["idle", n.idle, "done"]];
}

function total(loads: Load[]): Load | undefined {
  if (!loads.length) return undefined;
  const sum = (f: (l: Load) => number | undefined) => loads.some((l) => f(l) !== undefined) ? loads.reduce((n, l) => n + (f(l) ?? 0), 0) : undefined;
  const amount = (k: keyof Load) => ({ of: sum((l) => l[k].of) ?? 0, asked: sum((l) => l[k].asked), used: sum((l) => l[k].used) });
  return { cpu: amount("cpu"), memory: amount("memory"), pods: amount("pods") };
}
