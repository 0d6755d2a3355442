import { useMemo } from "preact/hooks";
import { request } from "../api";
import { Events } from "../events";
import { age, cpu, bytes, podVerdict, quantity, readyOf, restarts } from "../format";
import { KEEPERS, listPath, namespace, objectPath } from "../kinds";
import { Logs } from "../logs";
import { Explained, Timeline } from "../podstate";
import { PodMetrics } from "../metrics";
import { Action, Col, Dot, Facts, Fault, Heading, Labels, Loaded, Status, Table, Tabs } from "../parts";
import { go, link } from "../router";
import { Shell } from "../shell";
import { useNow, useStore } from "../store";
import { Obj, useFeed, useObject } from "../watch";
import { Yaml } from "../yaml";

const RANK = { bad: 0, wait: 1, good: 2, idle: 3 };

function columns(withNode: boolean): Col<Obj>[] {
  return [
    { name: "Name", width: "minmax(220px, 3fr)", sort: (p) => p.metadata.name, cell: (p) => <a href={link("pod", p.metadata.namespace!, p.metadata.name)}>{p.metadata.name}</a> },
    { name: "Namespace", width: "minmax(90px, 1fr)", wide: true, sort: (p) => p.metadata.namespace!, cell: (p) => p.metadata.namespace },
    { name: "Status", width: "minmax(130px, 1.3fr)", sort: (p) => RANK[podVerdict(p).tone] + podVerdict(p).text, cell: (p) => <Status v={podVerdict(p)} /> },
    { name: "Ready", width: "60px", sort: readyOf, cell: readyOf },
    { name: "Restarts", width: "80px", wide: true, sort: restarts, cell: (p) => restarts(p) || "" },
    ...(withNode ? [{ name: "Node", width: "minmax(90px, 1fr)", wide: true, sort: (p: Obj) => p.spec.nodeName ?? "", cell: (p: Obj) => p.spec.nodeName && <a href={link("node", p.spec.nodeName)}>{p.spec.nodeName}</a> }] : []),
    { name: "Address", width: "minmax(100px, 1fr)", wide: true, sort: (p) => p.status?.podIP ?? "", cell: (p) => p.status?.podIP },
    { name: "Age", width: "56px", wide: true, sort: (p) => -Date.parse(p.metadata.creationTimestamp), cell: (p, now) => age(p.metadata.creationTimestamp, now) },
  ];
}

export function PodTable({ pods, withNode = true, short }: { pods: Obj[]; withNode?: boolean; short?: boolean }) {
  const cols = useMemo(() => columns(withNode), [withNode]);
  return <Table rows={pods} cols={cols} short={short} open={(p) => go("pod", p.metadata.namespace!, p.metadata.name)} empty="No pods."
    text={(p) => `${podVerdict(p).text} ${p.spec.nodeName ?? ""} ${p.status?.podIP ?? ""} ${Object.entries(p.metadata.labels ?? {}).map((l) => l.join("=")).join(" ")}`} />;
}

export function Pods() {
  const ns = useStore(namespace), feed = useFeed(listPath("Pod", ns));
  return <><h1>Pods</h1><Loaded feed={feed}><PodTable pods={feed.list} /></Loaded></>;
}

const TABS: [string, string][] = [["", "State"], ["logs", "Logs"], ["shell", "Shell"], ["metrics", "Metrics"], ["events", "Events"], ["yaml", "YAML"]];

export function PodPage({ ns, name, tab, container }: { ns: string; name: string; tab: string; container?: string }) {
  const { object: pod, error, state } = useObject(listPath("Pod", ns), name);
  const path = objectPath("Pod", ns, name);
  if (!pod) return error ? <Fault error={error} /> : state === "live" ? <Gone ns={ns} name={name} /> : <p class="quiet">Loading…</p>;
  return (
    <>
      <Heading kind="Pods" back="#/pods" name={name} ns={ns}>
        <Status v={podVerdict(pod)} />
        <Action label="Delete" danger ask={`Delete the pod ${name}? Whatever keeps it makes another.`} run={() => request("DELETE", path)} done="The pod is being deleted" />
      </Heading>
      <Tabs of={TABS} at={tab} href={(t) => (t ? link("pod", ns, name, t) : link("pod", ns, name))} />
      {tab === "" && <PodState pod={pod} />}
      {tab === "logs" && <Logs key={container} pod={pod} first={container} />}
      {tab === "shell" && <Shell key={container} pod={pod} first={container} />}
      {tab === "metrics" && <PodMetrics pod={pod} />}
      {tab === "events" && <Events uid={pod.metadata.uid} ns={ns} />}
      {tab === "yaml" && <Yaml path={path} />}
    </>
  );
}

function Gone({ ns, name }: { ns: string; name: string }) {
  return <div class="fault"><b>This pod is gone.</b> There is no {name} in {ns}. <a href="#/pods">To the pods</a></div>;
}

function PodState({ pod }: { pod: Obj }) {
  const now = useNow(2000), owner = pod.metadata.ownerReferences?.find((o) => o.controller);
  return (
    <>
      <Explained pod={pod} />
      <Timeline pod={pod} now={now} />
      <div class="cards">
        {containers(pod).map((c) => <Container pod={pod} {...c} now={now} />)}
      </div>
      <h2>About</h2>
      <Facts of={[
        ["Kept by", owner && <Owner ns={pod.metadata.namespace!} owner={owner} />],
        ["Node", pod.spec.nodeName && <a href={link("node", pod.spec.nodeName)}>{pod.spec.nodeName}</a>],
        ["Address", pod.status?.podIP], ["Service account", pod.spec.serviceAccountName], ["Quality of service", pod.status?.qosClass],
        ["Priority", pod.spec.priority || ""], ["Age", age(pod.metadata.creationTimestamp, now)], ["Labels", <Labels of={pod.metadata.labels} />],
        ["Annotations", Object.keys(pod.metadata.annotations ?? {}).length > 0 && <Labels of={pod.metadata.annotations} />],
      ]} />
      <h2>Conditions</h2>
      <ul class="conditions">{(pod.status?.conditions ?? []).map((c: any) => (
        <li><Dot tone={c.status === "True" ? "good" : "wait"} /> <b>{c.type}</b> {c.reason} {c.message} <time>{age(c.lastTransitionTime, now)}</time></li>
      ))}</ul>
    </>
  );
}

function Owner({ ns, owner }: { ns: string; owner: { kind: string; name: string } }) {
  return KEEPERS.has(owner.kind) ? <a href={link("workload", owner.kind, ns, owner.name)}>{owner.kind} {owner.name}</a> : <>{owner.kind} {owner.name}</>;
}

interface Named { spec: any; status?: any; kind: string }

function containers(pod: Obj): Named[] {
  const st = pod.status ?? {};
  const join = (specs: any[] = [], statuses: any[] = [], kind: string) => specs.map((spec) => ({ spec, kind, status: statuses.find((s) => s.name === spec.name) }));
  return [
    ...join(pod.spec.initContainers, st.initContainerStatuses, "init"), ...join(pod.spec.containers, st.containerStatuses, ""),
    ...join(pod.spec.ephemeralContainers, st.ephemeralContainerStatuses, "debug"),
  ];
}

// asks says how much of a resource a container wants and may have.
function asks(r: any, what: "cpu" | "memory"): string {
  const say = (q: string) => (what === "cpu" ? cpu(quantity(q)) : bytes(quantity(q)));
  return [r.requests?.[what] && `${say(r.requests[what])} asked`, r.limits?.[what] && `${say(r.limits[what])} at most`].filter(Boolean).join(", ");
}

function Container({ pod, spec, status, kind, now }: Named & { pod: Obj; now: number }) {
  const s = status?.state ?? {}, r = spec.resources ?? {};
  const tone = s.running ? (status.ready || kind ? "good" : "wait") : s.terminated?.exitCode === 0 ? "idle" : s.terminated || /BackOff|Err/.test(s.waiting?.reason ?? "") ? "bad" : "wait";
  const text = s.running ? `Running for ${age(s.running.startedAt, now)}` : s.terminated ? `${s.terminated.reason} (${s.terminated.exitCode})` : (s.waiting?.reason ?? "Not started");
  return (
    <article class="card">
      <h3>{spec.name}{kind && <small> {kind}</small>}</h3>
      <p><Status v={{ text, tone, why: s.waiting?.message }} />{status?.restartCount > 0 && <small> {status.restartCount === 1 ? "1 restart" : `${status.restartCount} restarts`}</small>}</p>
      <Facts of={[
        ["Image", spec.image], ["Command", [...(spec.command ?? []), ...(spec.args ?? [])].join(" ")],
        ["CPU", asks(r, "cpu")], ["Memory", asks(r, "memory")],
        ["Ports", (spec.ports ?? []).map((p: any) => `${p.containerPort}/${p.protocol ?? "TCP"}`).join(", ")],
        ["Before", status?.lastState?.terminated && `${status.lastState.terminated.reason} (${status.lastState.terminated.exitCode}) ${age(status.lastState.terminated.finishedAt, now)} ago`],
      ]} />
      <p><a href={link("pod", pod.metadata.namespace!, pod.metadata.name, "logs", spec.name)}>Log</a>{s.running && kind !== "init" && <> · <a href={link("pod", pod.metadata.namespace!, pod.metadata.name, "shell", spec.name)}>Shell</a></>}</p>
    </article>
  );
}
