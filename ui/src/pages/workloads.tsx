import { useMemo, useState } from "preact/hooks";
import { patch, request } from "../api";
import { Events } from "../events";
import { age, counts, podVerdict, workloadVerdict } from "../format";
import { KEEPERS, listPath, namespace, objectPath, selecting } from "../kinds";
import { LogsOf } from "../logs";
import { Action, Bar, Col, Dialog, Dot, Facts, Fault, Heading, Labels, Loaded, Status, Table, Tabs, say } from "../parts";
import { go, link } from "../router";
import { useNow, useStore } from "../store";
import { Obj, useFeed, useObject } from "../watch";
import { Yaml } from "../yaml";
import { PodTable } from "./pods";

const KINDS = ["Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob"];
const RANK = { bad: 0, wait: 1, good: 2, idle: 3 };

export function Workloads() {
  const ns = useStore(namespace), [only, setOnly] = useState("");
  const feeds = KINDS.map((k) => useFeed(listPath(k, ns)));
  const rows = useMemo(() => feeds.flatMap((f, i) => (only && only !== KINDS[i] ? [] : f.list.map((o) => ({ ...o, kind: KINDS[i] })))), [...feeds.map((f) => f.list), only]);
  const cols: Col<Obj>[] = useMemo(() => [
    { name: "Name", width: "minmax(180px, 2.5fr)", sort: (o) => o.metadata.name, cell: (o) => <a href={link("workload", o.kind!, o.metadata.namespace!, o.metadata.name)}>{o.metadata.name}</a> },
    { name: "Kind", width: "minmax(90px, 1fr)", sort: (o) => o.kind!, cell: (o) => o.kind },
    { name: "Namespace", width: "minmax(90px, 1fr)", wide: true, sort: (o) => o.metadata.namespace!, cell: (o) => o.metadata.namespace },
    { name: "Status", width: "minmax(110px, 1fr)", sort: (o) => RANK[workloadVerdict(o, o.kind!).tone], cell: (o) => <Status v={workloadVerdict(o, o.kind!)} /> },
    { name: "Ready", width: "minmax(110px, 1.2fr)", cell: (o) => <Replicas o={o} /> },
    { name: "Image", width: "minmax(120px, 2fr)", wide: true, sort: images, cell: (o) => <span title={images(o)}>{images(o)}</span> },
    { name: "Age", width: "56px", sort: (o) => -Date.parse(o.metadata.creationTimestamp), cell: (o, now) => age(o.metadata.creationTimestamp, now) },
  ], []);
  const state = feeds.find((f) => f.error) ?? feeds.find((f) => f.state === "loading") ?? feeds[0];
  return (
    <>
      <h1>Workloads</h1>
      <Loaded feed={{ ...state, list: rows }}>
        <Table rows={rows} cols={cols} open={(o) => go("workload", o.kind!, o.metadata.namespace!, o.metadata.name)} text={(o) => `${o.kind} ${images(o)} ${workloadVerdict(o, o.kind!).text}`}
          empty="No workloads. skiff kubectl apply -f examples/web.yaml makes one."
          tools={<select aria-label="Kind" value={only} onChange={(e) => setOnly(e.currentTarget.value)}><option value="">All kinds</option>{KINDS.map((k) => <option>{k}</option>)}</select>} />
      </Loaded>
    </>
  );
}

const template = (o: Obj) => o.spec?.template ?? o.spec?.jobTemplate?.spec?.template;
const images = (o: Obj): string => (template(o)?.spec?.containers ?? []).map((c: any) => c.image).join(", ");

function Replicas({ o }: { o: Obj }) {
  const [ready, want] = counts(o, o.kind!);
  if (o.kind === "CronJob") return <span>{o.spec.schedule}</span>;
  return <span class="replicas"><Bar good value={ready} of={want} label={`${ready} of ${want}`} /><span>{ready}/{want}</span></span>;
}

export function WorkloadPage({ kind, ns, name, tab }: { kind: string; ns: string; name: string; tab: string }) {
  if (!KEEPERS.has(kind)) return <p class="quiet">There is no kind {kind} here.</p>;
  return <Workload kind={kind} ns={ns} name={name} tab={tab} />;
}

function Workload({ kind, ns, name, tab }: { kind: string; ns: string; name: string; tab: string }) {
  const { object, error, state } = useObject(listPath(kind, ns), name), path = objectPath(kind, ns, name);
  if (!object) return error ? <Fault error={error} /> : state === "live" ? <div class="fault"><b>It is gone.</b> There is no {kind} {name} in {ns}.</div> : <p class="quiet">Loading…</p>;
  const o = { ...object, kind };
  const tabs: [string, string][] = [["", ROLLS.has(kind) ? "Rollout" : "State"], ["logs", "Logs"], ["history", "Revisions"], ["events", "Events"], ["yaml", "YAML"]];
  return (
    <>
      <Heading kind={`${kind}s`} back="#/workloads" name={name} ns={ns}><Status v={workloadVerdict(o, kind)} /><Actions o={o} path={path} /></Heading>
      <Tabs of={tabs.filter(([id]) => id !== "history" || ROLLS.has(kind))} at={tab} href={(t) => (t ? link("workload", kind, ns, name, t) : link("workload", kind, ns, name))} />
      {tab === "" && <Rollout o={o} />}
      {tab === "logs" && <WorkloadLogs o={o} />}
      {tab === "history" && <History o={o} path={path} />}
      {tab === "events" && <Events uid={o.metadata.uid} ns={ns} />}
      {tab === "yaml" && <Yaml path={path} />}
    </>
  );
}

const ROLLS = new Set(["Deployment", "StatefulSet", "DaemonSet"]);
const SCALES = new Set(["Deployment", "StatefulSet", "ReplicaSet", "ReplicationController"]);

function Actions({ o, path }: { o: Obj; path: string }) {
  const kind = o.kind!, name = o.metadata.name, [scaling, setScaling] = useState(false);
  const restart = () => patch(path, { spec: { template: { metadata: { annotations: { "kubectl.kubernetes.io/restartedAt": new Date().toISOString() } } } } }, "strategic");
  return (
    <>
      {SCALES.has(kind) && <button onClick={() => setScaling(true)}>Scale</button>}
      {scaling && <Scale o={o} path={path} close={() => setScaling(false)} />}
      {ROLLS.has(kind) && <Action label="Restart" ask={`Replace all pods of ${name}, as its update strategy says?`} run={restart} done="New pods are being rolled out" />}
      {kind === "Deployment" && <Action label={o.spec.paused ? "Resume" : "Pause"} run={() => patch(path, { spec: { paused: !o.spec.paused } })} />}
      {(kind === "CronJob" || kind === "Job") && <Action label={o.spec.suspend ? "Resume" : "Suspend"} run={() => patch(path, { spec: { suspend: !o.spec.suspend } })} />}
      {kind === "CronJob" && <Action label="Run now" run={() => runNow(o)} done="A job has been made" />}
      <Action label="Delete" danger ask={`Delete the ${kind} ${name} and its pods?`} run={() => request("DELETE", path + "?propagationPolicy=Background")} done="Being deleted" />
    </>
  );
}

function runNow(o: Obj) {
  const name = `${o.metadata.name.slice(0, 40)}-manual-${Math.random().toString(36).slice(2, 7)}`, t = o.spec.jobTemplate;
  return request("POST", listPath("Job", o.metadata.namespace), {
    body: {
      apiVersion: "batch/v1", kind: "Job", spec: t.spec,
      metadata: {
        name, labels: t.metadata?.labels, annotations: { ...t.metadata?.annotations, "cronjob.kubernetes.io/instantiate": "manual" },
        ownerReferences: [{ apiVersion: "batch/v1", kind: "CronJob", name: o.metadata.name, uid: o.metadata.uid }],
      },
    },
  });
}

function Scale({ o, path, close }: { o: Obj; path: string; close: () => void }) {
  const [n, setN] = useState(o.spec.replicas ?? 1);
  const scale = async (e: Event) => {
    e.preventDefault();
    try {
      await patch(path + "/scale", { spec: { replicas: n } });
      say(`Scaling to ${n}`);
    } catch (err) {
      say((err as Error).message, true);
    }
    close();
  };
  return (
    <Dialog title={`Scale ${o.metadata.name}`} close={close}>
      <form onSubmit={scale}>
        <div class="stepper">
          <button type="button" aria-label="Less" onClick={() => setN(Math.max(0, n - 1))}>−</button>
          <input type="number" name="replicas" aria-label="Replicas" min={0} max={100000} value={n} autofocus onInput={(e) => setN(Number(e.currentTarget.value))} />
          <button type="button" aria-label="More" onClick={() => setN(n + 1)}>+</button>
        </div>
        <p class="quiet">Now {o.spec.replicas ?? 1}.</p>
        <div class="buttons"><button type="button" onClick={close}>Cancel</button><button class="solid">Scale</button></div>
      </form>
    </Dialog>
  );
}

// podsOf are a workload's: those that it controls, or, of a Deployment, that its ReplicaSets do.
function usePodsOf(o: Obj): { pods: Obj[]; sets: Obj[] } {
  const ns = o.metadata.namespace, between = o.kind === "Deployment" ? "ReplicaSet" : o.kind === "CronJob" ? "Job" : "";
  const query = o.spec?.selector ? selecting(o.kind === "ReplicationController" ? { matchLabels: o.spec.selector } : o.spec.selector) : "";
  const pods = useFeed(listPath("Pod", ns), query), sets = useFeed(between ? listPath(between, ns) : "", query);
  return useMemo(() => {
    const owned = (list: Obj[], uids: Set<string>) => list.filter((x) => x.metadata.ownerReferences?.some((r) => r.controller !== false && uids.has(r.uid)));
    const mine = between ? owned(sets.list, new Set([o.metadata.uid])) : [];
    return { sets: mine, pods: owned(pods.list, new Set(between ? mine.map((s) => s.metadata.uid) : [o.metadata.uid])) };
  }, [pods.list, sets.list, o.metadata.uid, between]);
}

function Rollout({ o }: { o: Obj }) {
  const kind = o.kind!, now = useNow(), { pods, sets } = usePodsOf(o), v = workloadVerdict(o, kind);
  const troubled = pods.map((p) => ({ p, v: podVerdict(p) })).filter((x) => x.v.tone === "bad");
  const [ready, want, updated] = counts(o, kind);
  const selector = o.spec?.selector?.matchLabels ?? o.spec?.selector;
  return (
    <>
      {(v.why || troubled.length > 0) && (
        <section class={`explained ${troubled.length || v.tone === "bad" ? "bad" : "wait"}`}>
          {v.why && <p>{v.why}</p>}
          {troubled.slice(0, 5).map(({ p, v }) => <p><a href={link("pod", p.metadata.namespace!, p.metadata.name)}>{p.metadata.name}</a> <Status v={v} /> {v.why}</p>)}
          {troubled.length > 5 && <p>…and {troubled.length - 5} more</p>}
        </section>
      )}
      {kind !== "CronJob" && (
        <section class="rollout">
          <Bar good value={ready} of={Math.max(want, 1)} asked={updated} label={`${updated} updated, ${ready} ready of ${want}`} />
          <p>{kind === "Job" ? <><b>{ready}</b> of {want} succeeded, {updated} running</> : <><b>{ready}</b> of <b>{want}</b> ready · {updated} of the newest revision</>}</p>
        </section>
      )}
      <Facts of={[
        ["Strategy", o.spec.strategy?.type ?? o.spec.updateStrategy?.type], ["Schedule", o.spec.schedule], ["Time zone", o.spec.timeZone], ["Last run", o.status?.lastScheduleTime && `${age(o.status.lastScheduleTime, now)} ago`], ["Image", images(o)], ["Selector", selector && <Labels of={selector} />], ["Age", age(o.metadata.creationTimestamp, now)],
      ]} />
      {(o.status?.conditions ?? []).length > 0 && <ul class="conditions">{o.status.conditions.map((c: any) => <li><Dot tone={c.status === "True" ? (/Fail/.test(c.type) ? "bad" : "good") : "wait"} /> <b>{c.type}</b> {c.reason} {c.message}</li>)}</ul>}
      {kind === "CronJob" && <><h2>Jobs</h2>{sets.length === 0 && <p class="quiet">It has no jobs at present.</p>}<ul class="plainlist">{sets.map((j) => <li><a href={link("workload", "Job", j.metadata.namespace!, j.metadata.name)}>{j.metadata.name}</a> <Status v={workloadVerdict(j, "Job")} /></li>)}</ul></>}
      <h2>Pods</h2>
      <PodTable pods={pods} short />
    </>
  );
}

function WorkloadLogs({ o }: { o: Obj }) {
  const { pods } = usePodsOf(o);
  return <LogsOf pods={pods} spec={template(o)?.spec} name={o.metadata.name} />;
}

// History lists what the workload's pods were before, and goes back to it.
function History({ o, path }: { o: Obj; path: string }) {
  const deployment = o.kind === "Deployment", now = useNow();
  const feed = useFeed(listPath(deployment ? "ReplicaSet" : "ControllerRevision", o.metadata.namespace));
  const number = (r: Obj) => Number(deployment ? r.metadata.annotations?.["deployment.kubernetes.io/revision"] : r.revision) || 0;
  const mine = feed.list.filter((r) => r.metadata.ownerReferences?.some((x) => x.uid === o.metadata.uid)).sort((a, b) => number(b) - number(a));
  const what = (r: Obj) => ((deployment ? r.spec.template : r.data?.spec?.template)?.spec?.containers ?? []).map((c: any) => `${c.name} ${c.image}`).join(", ");
  return (
    <Loaded feed={feed}>
      <ul class="revisions">{mine.map((r, i) => (
        <li>
          <b>{number(r)}</b>
          <div><code>{what(r)}</code><small>{age(r.metadata.creationTimestamp, now)} ago{deployment && `, ${r.status?.replicas ?? 0} pods`}{r.metadata.annotations?.["kubernetes.io/change-cause"] && ` — ${r.metadata.annotations["kubernetes.io/change-cause"]}`}</small></div>
          {i === 0 ? <span class="quiet">now</span> : <Action label="Go back to this" ask={`Roll ${o.metadata.name} back to revision ${number(r)}?`} run={() => undo(path, r, deployment)} done={`Rolling back to revision ${number(r)}`} />}
        </li>
      ))}</ul>
    </Loaded>
  );
}

function undo(path: string, r: Obj, deployment: boolean) {
  if (!deployment) return patch(path, r.data, "strategic");
  const template = structuredClone(r.spec.template);
  delete template.metadata?.labels?.["pod-template-hash"];
  return patch(path, [{ op: "replace", path: "/spec/template", value: template }], "json");
}
