import { useEffect, useRef, useState } from "preact/hooks";
import { ApiError, checkSession, request, socket } from "./api";
import { objectPath } from "./kinds";
import type { Obj } from "./watch";

// What is tried when no command is given: bash where there is one.
const DEFAULT = "";
const COMMAND = ["/bin/sh", "-c", "command -v bash >/dev/null 2>&1 && exec bash || exec sh"];

export function Shell({ pod, first }: { pod: Obj; first?: string }) {
  const names: string[] = [...(pod.status?.containerStatuses ?? []), ...(pod.status?.ephemeralContainerStatuses ?? [])].filter((c: any) => c.state?.running).map((c: any) => c.name);
  const [container, setContainer] = useState(first ?? pod.metadata.annotations?.["kubectl.kubernetes.io/default-container"] ?? ""), [command, setCommand] = useState(DEFAULT), [run, setRun] = useState(0);
  const box = useRef<HTMLDivElement>(null), [ended, setEnded] = useState("");
  const chosen = names.includes(container) ? container : (names[0] ?? "");
  useEffect(() => {
    if (!chosen) return;
    let gone = false, terminal: { dispose(): void } | undefined;
    setEnded("");
    const words = command.trim() ? ["/bin/sh", "-c", command] : COMMAND;
    const path = objectPath("Pod", pod.metadata.namespace, pod.metadata.name) + `/exec?container=${encodeURIComponent(chosen)}&stdin=true&stdout=true&tty=true&` +
      words.map((w) => "command=" + encodeURIComponent(w)).join("&");
    void import("./terminal").then(({ open }) => {
      if (gone) return;
      terminal = open(box.current!, socket(path, "v5.channel.k8s.io"), (why, opened) => {
        setEnded(why);
        // A browser does not say why a WebSocket was refused: because the session is over, or the user may not, these find out.
        void checkSession();
        if (!opened) request("GET", path).catch((e: ApiError) => gone || (e.code === 403 && setEnded(e.message)));
      });
    });
    return () => { gone = true; terminal?.dispose(); };
  }, [pod.metadata.uid, chosen, run]);
  if (!chosen) return <p class="quiet">No container of this pod is running, so there is nothing to open a shell in.</p>;
  return (
    <section class="shell">
      <form class="tools" onSubmit={(e) => { e.preventDefault(); setRun(run + 1); }}>
        {names.length > 1 && <select aria-label="Container" value={chosen} onChange={(e) => setContainer(e.currentTarget.value)}>{names.map((n) => <option>{n}</option>)}</select>}
        <input aria-label="Command" placeholder="bash or sh" value={command} onInput={(e) => setCommand(e.currentTarget.value)} />
        <button>Open anew</button>
        {ended && <span class="ended" role="status">{ended}</span>}
      </form>
      <div class="term" ref={box} />
    </section>
  );
}
