package test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"skiff.dev/skiff/test/cluster"
)

// A name in the log, in labels' neighbours and in annotations that would run if it were taken for anything but text.
const hostile = `<img src=x onerror="window.owned=1"><script>window.owned=1</script>`

const uiObjects = `
apiVersion: v1
kind: Pod
metadata: {name: broken, annotations: {note: '` + hostile + `'}}
spec:
  containers: [{name: c, image: "skiff.dev/web:1", command: [sh, -c, "echo no DATABASE_URL is set; exit 3"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: talker, labels: {app: talker}}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: c, image: "skiff.dev/web:1", command: [sh, -c, 'for i in 1 2 3; do echo "line $i"; done; echo "$TEXT"; while :; do sleep 1; done'], env: [{name: TEXT, value: '` + hostile + `'}]}]
---
apiVersion: v1
kind: Pod
metadata: {name: greedy}
spec:
  containers: [{name: c, image: "skiff.dev/web:1", resources: {requests: {cpu: "640"}}}]
---
apiVersion: v1
kind: Event
metadata: {name: hostile.1, namespace: default}
involvedObject: {kind: Pod, name: broken, namespace: default}
type: Warning
reason: Hostile
message: '` + hostile + `'
lastTimestamp: "2035-01-01T00:00:00Z"
`

// TestUI drives a real browser through the web UI of a real cluster.
func TestUI(t *testing.T) {
	t.Parallel()
	c := cluster.Start(t)
	b := browse(t, c)
	c.Apply(uiObjects)
	c.Kubectl("create", "deployment", "web", "--image=skiff.dev/web:1")
	for _, part := range []struct {
		name string
		run  func(b *browser)
	}{
		{"sign in", uiSignIn}, {"a broken pod is explained", uiExplains}, {"a pod's history", uiHistory}, {"a rollout", uiRollout}, {"logs", uiLogs}, {"metrics", uiMetrics}, {"shell", uiShell},
		{"YAML", uiYAML}, {"any resource", uiResources}, {"keys", uiKeys}, {"at a phone's width", uiPhone}, {"from another site", uiCrossSite}, {"an add-on is switched", uiAddons}, {"the session ends in the middle", uiSessionEnds}, {"the credential expires in the middle", uiExpires}, {"the user's rights only", uiRights}, {"one-time link", uiLink}, {"a node is drained", uiDrain}, {"nothing foreign", uiNothingForeign},
	} {
		if !t.Run(part.name, func(t *testing.T) { part.run(b.of(t)) }) {
			return // the page is not where the next part expects it
		}
	}
}

func uiSignIn(b *browser) {
	b.do(chromedp.Navigate(b.base+"/ui/"), chromedp.WaitVisible(`input[name=token]`), chromedp.SendKeys(`input[name=token]`, "wrong"+kb.Enter))
	b.sees(".fault", "does not know this credential")
	raw, err := os.ReadFile(b.c.Kubeconfig())
	if err != nil {
		b.t.Fatal(err)
	}
	b.do(chromedp.Click(`//button[text()="Kubeconfig"]`), chromedp.WaitVisible(`textarea`), chromedp.Focus(`textarea`), input.InsertText(string(raw)),
		chromedp.Click(`//button[text()="Sign in"]`))
	b.sees(".who", "kubernetes-admin")
	b.sees("main", "Overview")
}

func uiExplains(b *browser) {
	cluster.Eventually(b.t, func() error { // what there is, what was asked for, what is used
		var n int
		if b.do(chromedp.Evaluate(`[...document.querySelectorAll(".summary .gauge *")].filter(e => /^\S.* used, .* asked for, of \S/.test(e.ariaLabel ?? "")).length`, &n)); n < 2 {
			return fmt.Errorf("%d gauges", n)
		}
		return nil
	})
	b.sees(".troubles", "container c ends with exit code 3")
	b.sees(".troubles", "Insufficient cpu")
	b.sees(".events", hostile)
	b.follow(`//*[@class="events"]//a[text()="Pod default/broken"]`) // what a warning is about is a step away
	b.sees("main h1", "broken")
	b.sees(".explained", "no DATABASE_URL is set")
	b.sees("main", hostile) // the annotation
	b.goTo("pod/default/greedy")
	b.sees(".explained", "Insufficient cpu")
}

func uiRollout(b *browser) {
	b.goTo("workload/Deployment/default/web")
	b.sees(".rollout", "1 of 1 ready")
	b.do(chromedp.Click(`//button[text()="Scale"]`), chromedp.WaitVisible(`dialog input[name=replicas]`), chromedp.SetValue(`dialog input[name=replicas]`, ""),
		chromedp.SendKeys(`dialog input[name=replicas]`, "3"+kb.Enter))
	b.sees(".rollout", "3 of 3 ready")
	if n := b.c.Kubectl("get", "deployment", "web", "-o", "jsonpath={.spec.replicas}"); n != "3" {
		b.t.Errorf("the server has %s replicas", n)
	}
	b.do(chromedp.Click(`//header//button[text()="Restart"]`))
	b.confirm("Replace all pods of web")
	b.goTo("workload/Deployment/default/web/history")
	b.sees(".revisions", "Go back to this")
	b.do(chromedp.Click(`//button[text()="Go back to this"]`))
	b.confirm("Roll web back to revision 1?")
	cluster.Eventually(b.t, func() error {
		if r := b.c.Kubectl("get", "deployment", "web", "-o", `jsonpath={.metadata.annotations.deployment\.kubernetes\.io/revision}`); r != "3" {
			return fmt.Errorf("revision %s", r)
		}
		return nil
	})
}

func uiLogs(b *browser) {
	b.goTo("pod/default/talker/logs")
	b.sees(".log", "line 3")
	b.sees(".log", hostile)
	b.do(chromedp.SendKeys(".logs .filter", "LINE [12]"))
	b.sees(".logs .count", "2 of 4")
	b.sees(".log mark", "line 1")

	// Each container's card leads to its own log.
	b.c.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: pair}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - {name: one, image: "skiff.dev/web:1", command: [sh, -c, "echo the first; sleep 9999"]}
  - {name: two, image: "skiff.dev/web:1", command: [sh, -c, "echo the second; sleep 9999"]}
`)
	b.goTo("pod/default/pair")
	b.follow(`//article[h3[text()="two"]]//a[text()="Log"]`)
	b.sees(".log", "the second")
	b.goTo("pod/default/pair/logs")
	b.sees(".log", "the first")
	b.c.Kubectl("delete", "pod", "pair")
	uiWorkloadLogs(b)
}

// uiWorkloadLogs: a workload's log is its pods' together, each line with its pod, in the order of their times; pods that come later are in it, and those that went stay.
func uiWorkloadLogs(b *browser) {
	b.c.Apply(`
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: choir}
spec:
  serviceName: choir
  replicas: 2
  selector: {matchLabels: {app: choir}}
  template:
    metadata: {labels: {app: choir}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - {name: high, image: "skiff.dev/web:1", command: [sh, -c, 'echo "$(hostname) sings"; echo "$TEXT"; until [ -e /tmp/go ]; do sleep 0.1; done; echo the end; sleep 9999'], env: [{name: TEXT, value: '` + hostile + `'}]}
      - {name: low, image: "skiff.dev/web:1", command: [sh, -c, "echo hum; sleep 9999"]}
`)
	b.c.WaitPodReady("choir-1")
	b.goTo("workload/StatefulSet/default/choir/logs")
	for _, line := range []string{"choir-0/high choir-0 sings", "choir-1/high choir-1 sings", "choir-0/low hum", "choir-1/low hum", "choir-1/high " + hostile} {
		b.sees(".log pre", line)
	}
	for _, pod := range []string{"choir-1", "choir-0"} {
		b.c.Kubectl("exec", pod, "-c", "high", "--", "sh", "-c", "echo > /tmp/go")
		b.sees(".log pre", pod+"/high the end")
	}
	b.do(chromedp.SetValue(`select[aria-label=Container]`, "high"), chromedp.Evaluate(`document.querySelector("select[aria-label=Container]").dispatchEvent(new Event("change", {bubbles: true}))`, nil))
	b.sees(".log pre", "choir-0 the end")
	b.c.Kubectl("scale", "statefulset/choir", "--replicas=1")
	b.c.WaitPodGone("choir-1")
	b.c.Kubectl("scale", "statefulset/choir", "--replicas=2")
	b.sees(".logs .count", "8 lines") // three of each pod's run, but the last one has not come to its end
	var shown []string
	b.do(chromedp.Evaluate(`[...document.querySelectorAll(".log pre")].map(e => e.textContent)`, &shown))
	if want := []string{"choir-1 the end", "choir-0 the end", "choir-1 choir-1 sings"}; len(shown) != 8 || !slices.Equal(shown[4:7], want) {
		b.t.Errorf("the log is %q, want %q in it", shown, want)
	}
	b.keepPicture("workload-logs")
	b.c.Kubectl("delete", "statefulset", "choir")
}

// uiMetrics: the plots of a pod and of a node begin with what the node remembers.
func uiMetrics(b *browser) {
	node := strings.TrimSpace(b.c.Kubectl("get", "nodes", "-o", "jsonpath={.items[0].metadata.name}"))
	const enough = 7 // a page that began with nothing would have these after half a minute
	remembered := func(about string) error {
		var h struct{ Series []struct{ CPU []*uint64 } }
		out, err := b.c.TryKubectl("get", "--raw", "/api/v1/nodes/"+node+"/proxy/stats/history?"+about)
		if err == nil {
			err = json.Unmarshal([]byte(out), &h)
		}
		if err == nil && len(h.Series) == 0 {
			err = errors.New("nothing is remembered")
		}
		for _, s := range h.Series {
			if known := slices.DeleteFunc(s.CPU, func(v *uint64) bool { return v == nil }); len(known) < enough {
				return fmt.Errorf("%d figures are remembered", len(known))
			}
		}
		return err
	}
	for page, about := range map[string]string{"pod/default/talker/metrics": "namespace=default&pod=talker", "node/" + node: "only=node"} {
		cluster.Eventually(b.t, func() error { return remembered(about) })
		b.goTo(page)
		for _, title := range []string{"CPU", "Memory"} {
			shown := fmt.Sprintf(`(() => { const label = [...document.querySelectorAll(".plot [role=img]")].map(e => e.ariaLabel).find(l => l?.startsWith(%q)); return +(/: (\d+) figures/.exec(label ?? "")?.[1] ?? 0); })()`, title)
			cluster.Eventually(b.t, func() error {
				var n int
				if b.do(chromedp.Evaluate(shown, &n)); n < enough {
					return fmt.Errorf("%s shows %d figures of %s", page, n, title)
				}
				return nil
			})
		}
	}
}

func uiShell(b *browser) {
	b.goTo("pod/default/talker/shell")
	b.sees(".xterm-rows", "#")
	// Colours of every kind are where the terminal sets styles.
	b.do(chromedp.Click(".xterm-screen"), input.InsertText(`printf '\033[38;2;1;2;3mtrue\033[0m \033[31mred\033[0m %d\n' $((6*7))`), chromedp.KeyEvent(kb.Enter))
	b.sees(".xterm-rows", "true red 42")
	b.do(input.InsertText("exit"), chromedp.KeyEvent(kb.Enter))
	b.sees(".ended", "ended")
}

func uiYAML(b *browser) {
	b.goTo("workload/Deployment/default/web/yaml")
	b.sees(".cm-content", "kind: Deployment")
	object := b.c.Kubectl("get", "deployment", "web", "-o", "yaml")
	put := func(text string) {
		b.do(chromedp.Focus(".cm-content"), chromedp.KeyEvent("a", chromedp.KeyModifiers(input.ModifierCtrl)), input.InsertText(text))
	}
	put(strings.Replace(object, "replicas: 3", "replicas: -3", 1))
	b.do(chromedp.Click(`//button[text()="Check"]`))
	b.sees(".fault", "spec.replicas")
	b.sees(".cm-wrong", "replicas: -3")
	put(strings.Replace(object, "replicas: 3", "replicsa: 3", 1))
	b.do(chromedp.Click(`//button[text()="Check"]`))
	b.sees(".fault", "replicsa")
	put(strings.Replace(b.c.Kubectl("get", "deployment", "web", "-o", "yaml"), "replicas: 3", "replicas: 2", 1))
	b.do(chromedp.Click(`//button[text()="Check"]`))
	b.sees(".fine", "would take this")
	b.do(chromedp.Click(`//button[text()="Save"]`))
	b.told("Saved")
	if n := b.c.Kubectl("get", "deployment", "web", "-o", "jsonpath={.spec.replicas}"); n != "2" {
		b.t.Errorf("the server has %s replicas", n)
	}
}

func uiResources(b *browser) {
	b.goTo("resources")
	b.sees(".rows", "configmaps")
	b.goTo("list/core/v1/nodes")
	b.sees(".head", "Status")
	b.sees(".rows", "Ready")
	// What a Secret holds is in its YAML, for those who may read it, and in no table.
	b.c.Kubectl("create", "secret", "generic", "vault", "--from-literal=k=open-sesame")
	b.goTo("list/core/v1/secrets")
	b.sees(".rows", "vault")
	b.sees(".rows", "Opaque")
	var page string
	if b.do(chromedp.OuterHTML("html", &page)); strings.Contains(page, "open-sesame") || strings.Contains(page, "b3Blbi1zZXNhbWU") {
		b.t.Error("the table of Secrets shows what is in them")
	}
	b.goTo("object/core/v1/secrets/default/vault")
	b.sees(".cm-content", "k: b3Blbi1zZXNhbWU=")
	b.goTo("list/core/v1/configmaps")
	b.sees(".rows", "kube-root-ca.crt")
	b.sees(".head", "Data")
	uiHostileKind(b)
	uiVolumes(b)
	b.goTo("addons")
	b.sees("main", "Add-ons")
	uiTraffic(b)
	uiCreate(b)
	b.goTo("nodes")
	b.sees(".rows", "Ready")
}

func uiVolumes(b *browser) {
	b.c.Apply(strings.ReplaceAll(claimManifest, "name: c}", "name: stored}") + strings.NewReplacer("name: p}", "name: storing}", "claimName: c", "claimName: stored").Replace(claimPod))
	b.c.WaitPodReady("storing")
	b.goTo("volumes")
	for _, text := range []string{"stored", "Bound", volumeName(b.c, "stored"), "default/stored", "local (default)", "skiff.dev/local"} {
		b.sees("main .row", text)
	}
	b.c.Kubectl("delete", "pod/storing", "pvc/stored")
}

// uiTraffic: a service's page leads from its addresses to its pods, and says when nobody answers.
func uiTraffic(b *browser) {
	b.goTo("service/default/kubernetes")
	b.sees(".flow", "6443")
	b.c.Kubectl("expose", "deployment", "web", "--port=80", "--target-port=8080", "--type=NodePort")
	port := b.c.Kubectl("get", "service", "web", "-o", "jsonpath={.spec.ports[0].nodePort}")
	b.goTo("service/default/web")
	for _, text := range []string{"web.default.svc", ":" + port, "80 → 8080/TCP"} {
		b.sees(".flow .hop", text)
	}
	pods := strings.Fields(b.c.Kubectl("get", "pods", "-l", "app=web", "-o", "jsonpath={.items[*].metadata.name}"))
	for _, pod := range pods {
		b.sees(".flow .hop", pod)
	}
	b.c.Kubectl("patch", "service", "web", "-p", `{"spec": {"selector": {"app": "nobody"}}}`)
	b.sees(".explained", "No pod has the labels app=nobody, so connections are refused.")
	b.c.Kubectl("delete", "service", "web")
}

// uiCreate: an object is made from YAML, which the server checks first, and deleted on its page.
func uiCreate(b *browser) {
	b.goTo("resources")
	b.do(chromedp.Click(`//button[text()="Create from YAML"]`), chromedp.WaitVisible(`dialog textarea`))
	write := func(text, press string) {
		b.do(chromedp.Focus(`dialog textarea`), chromedp.KeyEvent("a", chromedp.KeyModifiers(input.ModifierCtrl)), input.InsertText(text), chromedp.Click(`//dialog//button[text()="`+press+`"]`))
	}
	write("apiVersion: example.com/v1\nkind: Nonesuch\nmetadata:\n  name: made\n", "Create")
	b.sees("dialog .fault", `the server has no kind "Nonesuch" of apiVersion "example.com/v1"`)
	const config = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: made\n  namespace: default\n"
	write(config+"dota:\n  a: b\n", "Check")
	b.sees("dialog .fault", `unknown field "dota"`)
	write(config+"data:\n  a: b\n", "Check")
	b.told("The server would take this")
	if out := b.c.Kubectl("get", "configmap", "made", "--ignore-not-found"); out != "" {
		b.t.Errorf("checking made it: %s", out)
	}
	b.do(chromedp.Click(`//dialog//button[text()="Create"]`), chromedp.WaitNotPresent("dialog[open]"))
	if out := b.c.Kubectl("get", "configmap", "made", "-o", "jsonpath={.data.a}"); out != "b" {
		b.t.Errorf("what was made has %q", out)
	}
	b.goTo("object/core/v1/configmaps/default/made")
	b.sees(".cm-content", "a: b")
	b.do(chromedp.Click(`//button[text()="Delete"]`))
	b.confirm("Delete the ConfigMap made?")
	b.sees("main h1", "ConfigMap")
	becomes(b.t, "the object to go", func() bool { return b.c.Kubectl("get", "configmap", "made", "--ignore-not-found") == "" })
}

func uiKeys(b *browser) {
	b.goTo("")
	b.sees("main h1", "Overview")
	cluster.Eventually(b.t, func() error { // the second key counts for three seconds only
		var title string
		if b.do(chromedp.KeyEvent("gp"), chromedp.Text("main h1", &title, chromedp.ByQuery)); title != "Pods" {
			return fmt.Errorf("at %s", title)
		}
		return nil
	})
	b.sees(".rows", "talker")
	b.do(chromedp.KeyEvent("/"), chromedp.KeyEvent("talk"))
	b.sees(".count", "1 of")
	b.do(chromedp.KeyEvent(kb.Enter), chromedp.Evaluate(`document.activeElement.blur()`, nil), chromedp.KeyEvent("j"), chromedp.KeyEvent(kb.Enter))
	b.sees("main h1", "talker")
	b.do(chromedp.KeyEvent("?"))
	b.sees("dialog", "Keys")
	b.do(chromedp.KeyEvent(kb.Escape))
}

// uiSessionEnds: who is signed in by a token that is revoked while a page is open is told, signs in again, and is where they were, with what they wrote.
func uiSessionEnds(b *browser) {
	token := func() string {
		b.c.Kubectl("create", "serviceaccount", "visitor")
		return strings.TrimSpace(b.c.Kubectl("create", "token", "visitor"))
	}
	again := func() {
		b.sees("dialog.again", "Your session has ended: the credential has been revoked")
		b.sees("dialog.again", "system:serviceaccount:default:visitor")
		b.do(chromedp.SendKeys(`dialog.again input[name=token]`, token()+kb.Enter), chromedp.WaitNotPresent("dialog.again"))
	}
	b.c.Kubectl("create", "clusterrolebinding", "visitor", "--clusterrole=cluster-admin", "--serviceaccount=default:visitor")
	b.c.Kubectl("create", "configmap", "words", "--from-literal=a=before")
	b.do(chromedp.Evaluate(`document.querySelectorAll("dialog[open]").forEach(d => d.close())`, nil)) // one that is open takes every click
	b.do(chromedp.Click(`//button[text()="Sign out"]`), chromedp.SendKeys(`input[name=token]`, token()+kb.Enter))
	b.sees(".who", "visitor")

	b.goTo("object/core/v1/configmaps/default/words")
	b.sees(".cm-content", "a: before")
	text := strings.Replace(b.c.Kubectl("get", "configmap", "words", "-o", "yaml"), "a: before", "a: after", 1)
	b.do(chromedp.Focus(".cm-content"), chromedp.KeyEvent("a", chromedp.KeyModifiers(input.ModifierCtrl)), input.InsertText(text))
	b.sees(".tools", "not saved")
	b.c.Kubectl("delete", "serviceaccount", "visitor")
	again()
	b.sees(".cm-content", "a: after")
	b.goTo("pod/default/talker/logs") // and what is not saved waits until one is back
	b.sees(".log", "line 3")
	b.c.Kubectl("delete", "serviceaccount", "visitor")
	again()
	b.sees(".log", "line 3")
	b.goTo("object/core/v1/configmaps/default/words")
	b.sees(".cm-content", "a: after")
	b.do(chromedp.Click(`//button[text()="Save"]`))
	b.told("Saved")
	if a := b.c.Kubectl("get", "configmap", "words", "-o", "jsonpath={.data.a}"); a != "after" {
		b.t.Errorf("the server has %s", a)
	}
	b.do(chromedp.ActionFunc(func(ctx context.Context) error { return network.ClearBrowserCookies().Do(ctx) }))
	b.goTo("pod/default/talker/yaml")
	b.sees("dialog.again", "Your session has ended")
	b.do(chromedp.Click(`//button[text()="Leave the page instead"]`))
	b.sees(".signin", "Sign in")
}

func uiLink(b *browser) {
	link, err := b.c.Skiff("dashboard")
	if err != nil {
		b.t.Fatalf("%v: %s", err, link)
	}
	_, code, ok := strings.Cut(strings.TrimSpace(link), "/ui/#/link/")
	if !ok {
		b.t.Fatalf("skiff dashboard prints %q", link)
	}
	b.do(chromedp.Navigate("about:blank"), chromedp.Navigate(b.base+"/ui/#/link/"+code))
	b.sees(".who", "kubernetes-admin")
	var at string
	b.do(chromedp.Location(&at))
	if strings.Contains(at, code) {
		b.t.Errorf("the code stays in the address: %s", at)
	}
	b.do(chromedp.Click(`//button[text()="Sign out"]`))
	b.sees(".signin", "Sign in")
	b.do(chromedp.Navigate("about:blank"), chromedp.Navigate(b.base+"/ui/#/link/"+code))
	b.told("has been used")
}

// uiNothingForeign: whatever was shown, nothing of it ran, nothing broke the page's policy, and nothing was asked of anybody else.
func uiNothingForeign(b *browser) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, problem := range b.problems {
		b.t.Error(problem)
	}
	if b.requests < 20 {
		b.t.Errorf("only %d requests were seen", b.requests)
	}
}

// browser is one tab, and what went wrong in it.
type browser struct {
	t    *testing.T
	c    *cluster.Cluster
	base string
	ctx  context.Context
	*seen
}

type seen struct {
	mu       sync.Mutex
	problems []string
	requests int
}

func (b *browser) of(t *testing.T) *browser {
	own := *b
	own.t = t
	return &own
}

// browse starts a browser that reaches the cluster's API server.
func browse(t *testing.T, c *cluster.Cluster) *browser {
	t.Helper()
	program := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			program = path
			break
		}
	}
	if program == "" {
		t.Fatal("no Chromium is installed; run make test-deps, or: apt-get install chromium")
	}
	b := &browser{t: t, c: c, seen: &seen{}, base: "https://" + forward(t, c.Host(), "127.0.0.1:6443")}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(program), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.WindowSize(1280, 800),
		chromedp.Flag("ignore-certificate-errors", true), chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true),
		chromedp.UserDataDir(t.TempDir()), chromedp.WSURLReadTimeout(time.Minute))
	alloc, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, end := chromedp.NewContext(alloc)
	t.Cleanup(func() {
		_ = chromedp.Cancel(ctx)
		end()
		cancel()
	})
	b.ctx = ctx
	chromedp.ListenTarget(ctx, b.notice)
	b.do(network.Enable(), log.Enable(), runtime.Enable(), chromedp.ActionFunc(func(ctx context.Context) error {
		_, err := page.AddScriptToEvaluateOnNewDocument(`addEventListener("securitypolicyviolation", e => console.error("POLICY", location.hash, e.target?.outerHTML?.slice(0, 200), e.violatedDirective, e.blockedURI, e.sourceFile, e.sample));
			Object.defineProperty(window, "owned", { set() { console.error("OWNED") } });
			window.toldAll = []; let said = ""; new MutationObserver(() => { const s = document.querySelector(".said")?.textContent ?? ""; if (s && s !== said) toldAll.push(s); said = s }).observe(document, { subtree: true, childList: true, characterData: true })`).Do(ctx)
		return err
	}))
	if rate, err := strconv.ParseFloat(os.Getenv("SKIFF_UI_SLOWER"), 64); err == nil { // the page on a machine so many times slower
		b.do(chromedp.ActionFunc(func(ctx context.Context) error { return emulation.SetCPUThrottlingRate(rate).Do(ctx) }))
	}
	return b
}

func (b *browser) notice(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		b.requests++
		if u := e.Request.URL; !strings.HasPrefix(u, b.base+"/ui") && !strings.HasPrefix(u, "data:") && !strings.HasPrefix(u, "about:") && !strings.HasPrefix(u, "blob:") {
			b.problems = append(b.problems, "a foreign request: "+u)
		}
	case *network.EventWebSocketCreated:
		if !strings.HasPrefix(e.URL, strings.Replace(b.base, "https:", "wss:", 1)+"/ui/api/") {
			b.problems = append(b.problems, "a foreign connection: "+e.URL)
		}
	case *runtime.EventExceptionThrown:
		b.problems = append(b.problems, "an exception: "+e.ExceptionDetails.Error())
	case *runtime.EventConsoleAPICalled:
		if e.Type == runtime.APITypeError {
			text := "the console:"
			for _, a := range e.Args {
				text += " " + string(a.Value)
			}
			b.problems = append(b.problems, text)
		}
	}
}

// do fails the test if the page does not come to it in time, and keeps a picture then.
func (b *browser) do(actions ...chromedp.Action) {
	b.t.Helper()
	ctx, cancel := b.ctx, context.CancelFunc(func() {})
	if chromedp.FromContext(ctx).Browser != nil { // the first run starts the browser, which must outlive it
		ctx, cancel = context.WithTimeout(ctx, cluster.Patience)
	}
	defer cancel()
	if err := chromedp.Run(ctx, actions...); err != nil {
		b.fail(err)
	}
}

func (b *browser) goTo(where string) {
	b.t.Helper()
	b.do(chromedp.Evaluate(fmt.Sprintf("location.hash = %q", "#/"+where), nil))
}

// sees waits until an element that the selector finds holds the text.
func (b *browser) sees(selector, text string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, cluster.Patience)
	defer cancel()
	found, js := false, fmt.Sprintf(`[...document.querySelectorAll(%q)].some(e => e.textContent.replaceAll("\u00a0", " ").includes(%q))`, selector, text)
	for !found {
		if err := chromedp.Run(ctx, chromedp.Evaluate(js, &found)); err != nil {
			b.fail(fmt.Errorf("no %s with %q: %w", selector, text, err))
		}
		if !found {
			select {
			case <-ctx.Done():
			case <-time.After(50 * time.Millisecond):
			}
		}
	}
}

// told waits until the page has said so since it was asked last: it does only for some seconds.
func (b *browser) told(text string) {
	b.t.Helper()
	cluster.Eventually(b.t, func() error {
		var all []string
		if b.do(chromedp.Evaluate(`window.toldAll`, &all)); !slices.ContainsFunc(all, func(s string) bool { return strings.Contains(s, text) }) {
			return fmt.Errorf("it said %q, nothing with %q", all, text)
		}
		b.do(chromedp.Evaluate(`window.toldAll = []`, nil))
		return nil
	})
}

// follow goes where a link leads, by keyboard: on a page that lives a click may come too late for where the link was.
func (b *browser) follow(link string) {
	b.t.Helper()
	b.do(chromedp.Focus(link), chromedp.KeyEvent(kb.Enter))
}

// confirm answers the question that the page asks with yes.
func (b *browser) confirm(question string) {
	b.t.Helper()
	b.sees("dialog[open]", question)
	b.do(chromedp.Click("dialog[open] button.solid", chromedp.ByQuery))
}

func (b *browser) fail(err error) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, 10*time.Second)
	defer cancel()
	var picture []byte
	var text string
	if e := chromedp.Run(ctx, chromedp.CaptureScreenshot(&picture), chromedp.Text("body", &text)); e == nil {
		file := filepath.Join(os.TempDir(), "skiff-ui-failure.png")
		if os.WriteFile(file, picture, 0o600) == nil {
			b.t.Logf("the page is kept in %s; it says:\n%s", file, text)
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.t.Fatalf("%v\n%s", err, strings.Join(b.problems, "\n"))
}

// forward makes a host's port one of this machine's, and returns its address.
func forward(t *testing.T, h *cluster.Host, to string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			go relay(in, h, to)
		}
	}()
	return l.Addr().String()
}

func relay(in net.Conn, h *cluster.Host, to string) {
	defer in.Close()
	out, err := h.Dial(context.Background(), "tcp", to)
	if err != nil {
		return
	}
	defer out.Close()
	go func() {
		_, err := io.Copy(out, in)
		if err != nil && !errors.Is(err, net.ErrClosed) {
			_ = out.Close()
			return
		}
		_ = out.(*net.TCPConn).CloseWrite()
	}()
	_, _ = io.Copy(in, out)
}
