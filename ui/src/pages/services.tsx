import { useMemo } from "preact/hooks";
import { request } from "../api";
import { Events } from "../events";
import { age, podVerdict } from "../format";
import { listPath, namespace, objectPath, selecting } from "../kinds";
import { Action, Col, Dot, Facts, Fault, Heading, Labels, Loaded, Table, Tabs } from "../parts";
import { go, link } from "../router";
import { useStore } from "../store";
import { Obj, useFeed, useObject } from "../watch";
import { Yaml } from "../yaml";

const ports = (s: Obj): string => (s.spec.ports ?? []).map((p: any) => `${p.port}${p.nodePort ? ":" + p.nodePort : ""}/${p.protocol}`).join(" ");
const outside = (s: Obj): string => [...(s.status?.loadBalancer?.ingress ?? []).map((i: any) => i.ip || i.hostname), ...(s.spec.externalIPs ?? []), s.spec.externalName].filter(Boolean).join(", ");
const serviceOf = (slice: Obj) => `${slice.metadata.namespace}/${slice.metadata.labels?.["kubernetes.io/service-name"]}`;

interface Endpoint { address: string; ready: boolean; serving: boolean; ending: boolean; pod?: string; node?: string; ports: string }

function endpointsOf(slices: Obj[]): Endpoint[] {
  return slices.flatMap((s) => (s.endpoints ?? []).map((e: any) => ({
    address: e.addresses?.[0] ?? "", ready: e.conditions?.ready !== false, serving: e.conditions?.serving !== false, ending: e.conditions?.terminating === true,
    pod: e.targetRef?.kind === "Pod" ? e.targetRef.name : undefined, node: e.nodeName, ports: (s.ports ?? []).map((p: any) => p.port).join(", "),
  })));
}

export function Services() {
  const ns = useStore(namespace), feed = useFeed(listPath("Service", ns)), slices = useFeed(listPath("EndpointSlice", ns));
  const ready = useMemo(() => {
    const out = new Map<string, [number, number]>();
    for (const s of slices.list) {
      const [good, all] = out.get(serviceOf(s)) ?? [0, 0], e = endpointsOf([s]);
      out.set(serviceOf(s), [good + e.filter((x) => x.ready).length, all + e.length]);
    }
    return out;
  }, [slices.list]);
  const cols: Col<Obj>[] = useMemo(() => {
    const backing = (s: Obj) => ready.get(`${s.metadata.namespace}/${s.metadata.name}`) ?? [0, 0];
    return [
      { name: "Name", width: "minmax(160px, 2fr)", sort: (s) => s.metadata.name, cell: (s) => <a href={link("service", s.metadata.namespace!, s.metadata.name)}>{s.metadata.name}</a> },
      { name: "Namespace", width: "minmax(90px, 1fr)", wide: true, sort: (s) => s.metadata.namespace!, cell: (s) => s.metadata.namespace },
      { name: "Type", width: "minmax(100px, 1fr)", sort: (s) => s.spec.type, cell: (s) => s.spec.type },
      { name: "Cluster address", width: "minmax(110px, 1fr)", wide: true, sort: (s) => s.spec.clusterIP ?? "", cell: (s) => (s.spec.clusterIP === "None" ? "headless" : s.spec.clusterIP) },
      { name: "From outside", width: "minmax(110px, 1fr)", wide: true, sort: outside, cell: outside },
      { name: "Ports", width: "minmax(110px, 1.2fr)", cell: ports },
      { name: "Endpoints", width: "90px", sort: (s) => backing(s)[0], cell: (s) => s.spec.type === "ExternalName" ? "" : <><Dot tone={backing(s)[0] ? "good" : "bad"} title="ready" /> {backing(s)[0]}/{backing(s)[1]}</> },
      { name: "Age", width: "56px", sort: (s) => -Date.parse(s.metadata.creationTimestamp), cell: (s, now) => age(s.metadata.creationTimestamp, now) },
    ];
  }, [ready]);
  return <><h1>Services</h1><Loaded feed={feed}><Table rows={feed.list} cols={cols} open={(s) => go("service", s.metadata.namespace!, s.metadata.name)} text={(s) => `${s.spec.type} ${s.spec.clusterIP} ${ports(s)}`} /></Loaded></>;
}

export function ServicePage({ ns, name, tab }: { ns: string; name: string; tab: string }) {
  const { object: s, error, state } = useObject(listPath("Service", ns), name), path = objectPath("Service", ns, name);
  if (!s) return error ? <Fault error={error} /> : state === "live" ? <div class="fault"><b>It is gone.</b> There is no Service {name} in {ns}.</div> : <p class="quiet">Loading…</p>;
  return (
    <>
      <Heading kind="Services" back="#/services" name={name} ns={ns}><Action label="Delete" danger ask={`Delete the Service ${name}?`} run={() => request("DELETE", path)} done="Deleted" /></Heading>
      <Tabs of={[["", "Traffic"], ["events", "Events"], ["yaml", "YAML"]]} at={tab} href={(t) => (t ? link("service", ns, name, t) : link("service", ns, name))} />
      {tab === "" && <Traffic s={s} />}
      {tab === "events" && <Events uid={s.metadata.uid} ns={ns} />}
      {tab === "yaml" && <Yaml path={path} />}
    </>
  );
}

// Traffic draws where a connection to the service goes.
function Traffic({ s }: { s: Obj }) {
  const ns = s.metadata.namespace!, name = s.metadata.name;
  const feed = useFeed(listPath("EndpointSlice", ns), selecting({ matchLabels: { "kubernetes.io/service-name": name } })), pods = useFeed(s.spec.selector ? listPath("Pod", ns) : "", selecting({ matchLabels: s.spec.selector }));
  const named = useMemo(() => new Map(pods.list.map((p) => [p.metadata.name, p])), [pods.list]);
  const list = endpointsOf(feed.list).sort((a, b) => Number(b.ready) - Number(a.ready)), good = list.filter((e) => e.ready).length;
  const way = (title: string, ...at: string[]) => (at.filter(Boolean).length ? <div class="hop"><small>{title}</small>{at.filter(Boolean).map((a) => <code>{a}</code>)}</div> : null);
  return (
    <>
      {list.length === 0 && s.spec.type !== "ExternalName" && (
        <section class="explained bad"><h2>Nobody answers</h2><p>{s.spec.selector ? <>No pod has the labels <Labels of={s.spec.selector} />, so connections are refused.</> : "The Service has no selector, and nobody has made endpoints for it."}</p></section>
      )}
      {list.length > 0 && good === 0 && <section class="explained bad"><h2>Nobody is ready</h2><p>{list.length} endpoints are known, none is ready, so connections are refused.</p></section>}
      <section class="flow">
        <div class="column">
          {way("In the cluster", s.spec.clusterIP !== "None" ? s.spec.clusterIP : "", `${name}.${ns}.svc`)}
          {way("On every node", ...(s.spec.ports ?? []).filter((p: any) => p.nodePort).map((p: any) => `:${p.nodePort}`))}
          {way("From outside", outside(s))}
        </div>
        <div class="column mid">{(s.spec.ports ?? []).map((p: any) => <div class="hop"><small>{p.name || "port"}</small><code>{p.port} → {p.targetPort ?? p.port}/{p.protocol}</code></div>)}</div>
        <div class="column">
          {list.slice(0, 200).map((e) => {
            const pod = named.get(e.pod ?? "");
            return (
              <div class={`hop${e.ready ? "" : " off"}`}>
                <span><Dot tone={e.ready ? "good" : e.serving ? "wait" : "bad"} /> {e.pod ? <a href={link("pod", ns, e.pod)}>{e.pod}</a> : <code>{e.address}</code>}</span>
                <small>{e.address}:{e.ports} {e.node && `on ${e.node}`} {e.ending ? "ending" : e.ready ? "" : "not ready"} {pod && podVerdict(pod).tone === "bad" ? podVerdict(pod).text : ""}</small>
              </div>
            );
          })}
          {list.length > 200 && <p class="quiet">…and {list.length - 200} more</p>}
        </div>
      </section>
      <Facts of={[["Type", s.spec.type], ["Selector", s.spec.selector && <Labels of={s.spec.selector} />], ["Affinity", s.spec.sessionAffinity === "None" ? "" : s.spec.sessionAffinity], ["External traffic", s.spec.externalTrafficPolicy], ["Internal traffic", s.spec.internalTrafficPolicy], ["Families", (s.spec.ipFamilies ?? []).join(", ")]]} />
    </>
  );
}
