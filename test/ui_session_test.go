package test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"skiff.dev/skiff/internal/pki"
	"skiff.dev/skiff/test/cluster"
)

// uiExpires: the certificate that somebody signed in with is over while they write. They are told, sign in with another, and go on with what they wrote.
func uiExpires(b *browser) {
	ca, err := pki.OpenAuthority(filepath.Join(b.c.DataDir, "pki"), "ca", "skiff", time.Now())
	if err != nil {
		b.t.Fatal(err)
	}
	kubeconfig := func(life time.Duration) string {
		pair, err := ca.Issue(pki.Leaf{CommonName: "ann", Organizations: []string{"system:masters"}, Life: life}, time.Now())
		if err != nil {
			b.t.Fatal(err)
		}
		cert, key, err := pki.EncodePair(pair)
		if err != nil {
			b.t.Fatal(err)
		}
		raw, err := clientcmd.Write(clientcmdapi.Config{
			AuthInfos: map[string]*clientcmdapi.AuthInfo{"ann": {ClientCertificateData: cert, ClientKeyData: key}}, Contexts: map[string]*clientcmdapi.Context{"c": {AuthInfo: "ann"}}, CurrentContext: "c",
		})
		if err != nil {
			b.t.Fatal(err)
		}
		return string(raw)
	}
	signIn := func(within string, life time.Duration) {
		b.t.Helper()
		b.do(chromedp.Click(`//`+within+`//button[text()="Kubeconfig"]`), chromedp.WaitVisible(`textarea[name=kubeconfig]`), chromedp.Focus(`textarea[name=kubeconfig]`), input.InsertText(kubeconfig(life)),
			chromedp.Click(`//`+within+`//button[text()="Sign in"]`))
	}
	b.c.Kubectl("create", "configmap", "letter", "--from-literal=a=before")
	b.do(chromedp.WaitNotPresent("dialog.again")) // of the session before, which holds the same form
	b.sees(".signin", "Sign in")
	text := strings.Replace(b.c.Kubectl("get", "configmap", "letter", "-o", "yaml"), "a: before", "a: after", 1)
	writes := func(life time.Duration) {
		b.t.Helper()
		signIn("main", life)
		b.sees(".who", "ann")
		b.goTo("object/core/v1/configmaps/default/letter")
		b.sees(".cm-content", "a: before")
		b.do(chromedp.Focus(".cm-content"), chromedp.KeyEvent("a", chromedp.KeyModifiers(input.ModifierCtrl)), input.InsertText(text))
		b.sees(".tools", "not saved")
	}
	began := time.Now() // how long this takes here tells how long the certificate must be good
	writes(time.Hour)
	b.do(chromedp.Click(`//button[text()="Sign out"]`)) // and nobody finds what was written and not saved
	b.sees(".signin", "Sign in")
	writes(10*time.Second + 3*time.Since(began))
	b.sees("dialog.again", "Your session has ended: the credential was good, or the session, until ")
	b.keepPicture("session-ended")
	signIn("dialog", time.Hour)
	b.do(chromedp.WaitNotPresent("dialog.again"))
	b.sees(".cm-content", "a: after")
	b.do(chromedp.Click(`//button[text()="Save"]`))
	b.told("Saved")
	if a := b.c.Kubectl("get", "configmap", "letter", "-o", "jsonpath={.data.a}"); a != "after" {
		b.t.Errorf("the server has %s", a)
	}
	b.do(chromedp.Click(`//button[text()="Sign out"]`))
	b.sees(".signin", "Sign in")
}

// uiAddons: the switch of an add-on takes it out of the cluster and brings it back; how an add-on is, is told while it changes.
func uiAddons(b *browser) {
	row := func(name string) string { return `//div[@role="row"][.//a[text()="` + name + `"]]` }
	says := func(name, state string) {
		b.t.Helper()
		b.do(chromedp.WaitVisible(row(name) + `//*[contains(@class, "status")][text()="` + state + `"]`))
	}
	b.goTo("addons")
	says("metrics", "Ready")
	b.do(chromedp.Click(row("metrics") + `//button[text()="Disable"]`))
	b.confirm("Disable metrics")
	says("metrics", "Disabled")
	if out, err := b.c.TryKubectl("get", "--raw", "/apis/metrics.k8s.io/v1beta1/nodes"); err == nil {
		b.t.Errorf("metrics.k8s.io still answers: %s", out)
	}
	b.do(chromedp.Click(row("metrics") + `//button[text()="Enable"]`))
	says("metrics", "Ready")
	becomes(b.t, "metrics.k8s.io", func() bool {
		_, err := b.c.TryKubectl("get", "--raw", "/apis/metrics.k8s.io/v1beta1/nodes")
		return err == nil
	})

	install := func(command string) {
		dir := b.t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "boat.yaml"), []byte(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: boat, namespace: default}
spec:
  selector: {matchLabels: {app: boat}}
  template: {metadata: {labels: {app: boat}}, spec: {terminationGracePeriodSeconds: 0, containers: [{name: c, image: "skiff.dev/web:1", command: [sh, -c, "`+command+`"]}]}}
`), 0o600); err != nil {
			b.t.Fatal(err)
		}
		if out, err := b.c.Skiff("addon", "install", dir, "--name=boat", "--data-dir", b.c.DataDir); err != nil {
			b.t.Fatalf("%v: %s", err, out)
		}
	}
	install("exit 1")
	says("boat", "Progressing")
	b.sees(".explained", "Deployment default/boat")
	install("sleep 9999")
	says("boat", "Ready")
	b.do(chromedp.WaitNotPresent(".explained"))
	// The row that asks is taken away, as another add-on of that name comes: the question waits for its answer.
	b.do(chromedp.Click(row("boat") + `//button[text()="Disable"]`))
	b.sees("dialog[open]", "Disable boat")
	if out, err := b.c.Skiff("addon", "remove", "boat", "--data-dir", b.c.DataDir); err != nil {
		b.t.Fatalf("%v: %s", err, out)
	}
	b.do(chromedp.WaitNotPresent(row("boat")))
	install("sleep 9999")
	says("boat", "Ready")
	b.confirm("Disable boat")
	says("boat", "Disabled")
	if left := b.c.Kubectl("get", "deployment", "boat", "--ignore-not-found"); left != "" {
		b.t.Errorf("left behind: %s", left)
	}
}

// uiDrain: a node is cordoned, drained as far as disruption budgets let it, and taken back.
func uiDrain(b *browser) {
	b.c.Kubectl("create", "serviceaccount", "keeper")
	b.c.Kubectl("create", "clusterrolebinding", "keeper", "--clusterrole=cluster-admin", "--serviceaccount=default:keeper")
	b.do(chromedp.Navigate("about:blank"), chromedp.Navigate(b.base+"/ui/"), chromedp.WaitVisible(`input[name=token]`), chromedp.SendKeys(`input[name=token]`, strings.TrimSpace(b.c.Kubectl("create", "token", "keeper"))+kb.Enter))
	b.sees(".who", "keeper")
	for _, name := range []string{"guarded", "loose"} {
		b.c.Kubectl("create", "deployment", name, "--image=skiff.dev/web:1")
		b.c.Kubectl("rollout", "status", "deployment/"+name, "--timeout=3m")
	}
	b.c.Kubectl("create", "poddisruptionbudget", "guard", "--selector=app=guarded", "--min-available=1")
	b.c.Kubectl("wait", "pdb/guard", "--for=jsonpath={.status.currentHealthy}=1", "--timeout=3m")
	node := strings.TrimSpace(b.c.Kubectl("get", "nodes", "-o", "jsonpath={.items[0].metadata.name}"))
	cordoned := func() string {
		return b.c.Kubectl("get", "node", node, "-o", "jsonpath={.spec.unschedulable}")
	}
	b.goTo("node/" + node)
	b.do(chromedp.Click(`//header//button[text()="Cordon"]`))
	b.told("No new pods will come")
	if cordoned() != "true" {
		b.t.Error("the node takes pods")
	}
	b.do(chromedp.Click(`//header//button[text()="Drain"]`))
	b.sees("dialog[open] .fault", "talker") // nobody makes it anew
	b.do(chromedp.Click("dialog[open] button.danger", chromedp.ByQuery))
	b.sees("dialog[open] li", "The disruption budget guard needs 1 healthy pods and has 1 currently")
	evicted := func(name string) {
		b.t.Helper()
		cluster.Eventually(b.t, func() error {
			var list []string
			b.do(chromedp.Evaluate(`[...document.querySelectorAll("dialog[open] li")].map(e => e.textContent)`, &list))
			for _, l := range list {
				if strings.Contains(l, "default/"+name) && strings.Contains(l, "evicted") {
					return nil
				}
			}
			return fmt.Errorf("%s is not evicted: %q", name, list)
		})
	}
	evicted("loose-")
	evicted("talker")
	b.c.Kubectl("delete", "pdb", "guard")
	evicted("guarded-")
	b.do(chromedp.Click(`//dialog//button[text()="Close"]`), chromedp.Click(`//header//button[text()="Uncordon"]`))
	b.told("New pods may come again")
	if cordoned() != "" {
		b.t.Error("the node takes no pods")
	}
	for _, name := range []string{"guarded", "loose"} {
		b.c.Kubectl("rollout", "status", "deployment/"+name, "--timeout=3m")
	}
}

// uiRights: who may do little sees and does no more than that, and is told what is not allowed.
func uiRights(b *browser) {
	b.c.Kubectl("create", "serviceaccount", "reader")
	b.c.Kubectl("create", "rolebinding", "reader", "--clusterrole=view", "--serviceaccount=default:reader")
	b.do(chromedp.WaitVisible(`input[name=token]`), chromedp.SendKeys(`input[name=token]`, strings.TrimSpace(b.c.Kubectl("create", "token", "reader"))+kb.Enter))
	b.sees(".who", "reader")
	b.goTo("pods")
	b.sees(".fault", `cannot list resource "pods" in API group "" at the cluster scope`)
	b.do(chromedp.SendKeys("input.ns", "default"+kb.Enter))
	b.sees(".rows", "talker")
	b.goTo("pod/default/talker")
	b.do(chromedp.Click(`//header//button[text()="Delete"]`))
	b.confirm("Delete")
	b.told(`cannot delete resource "pods"`)
	b.goTo("list/core/v1/secrets")
	b.sees(".fault", "Not allowed")
	b.goTo("pod/default/talker/shell")
	b.sees("main", `cannot get resource "pods/exec"`)
	if out := b.c.Kubectl("get", "pod", "talker", "-o", "jsonpath={.metadata.deletionTimestamp}"); out != "" {
		b.t.Errorf("the pod is being deleted since %s", out)
	}
	b.do(chromedp.Click(`//button[text()="Sign out"]`))
	b.sees(".signin", "Sign in")
}

// uiCrossSite: a page that another program serves on the same host, which browsers send the session's cookie to, can do nothing with the session.
func uiCrossSite(b *browser) {
	var sent atomic.Bool
	api := b.base + "/ui/api/api/v1/namespaces/default"
	attacks := `<iframe name=sink></iframe><form method=post target=sink enctype=text/plain action="` + api + `/configmaps"><input name='{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"forged","labels":{"a":"' value='"}}}'></form>
<script>(async () => {
	const config = name => JSON.stringify({apiVersion: "v1", kind: "ConfigMap", metadata: {name}}), tried = p => p.then(() => "sent", e => "refused");
	document.forms[0].submit();
	const read = await tried(fetch("` + api + `/pods", {credentials: "include"}));
	await tried(fetch("` + api + `/configmaps", {method: "POST", mode: "no-cors", credentials: "include", body: config("blind")}));
	await tried(fetch("` + api + `/configmaps", {method: "POST", credentials: "include", headers: {"Content-Type": "application/json", "X-Skiff-Secret": "x"}, body: config("asked")}));
	await tried(fetch("` + b.base + `/ui/session", {method: "DELETE", credentials: "include"}));
	const socket = await new Promise(done => {
		const s = new WebSocket("` + strings.Replace(api, "https:", "wss:", 1) + `/pods/talker/exec?command=touch&command=/tmp/owned&stdout=1", ["v5.channel.k8s.io", "skiff.secret.x"]);
		s.onopen = () => done("opened");
		s.onerror = () => done("refused");
	});
	document.title = "read " + read + ", socket " + socket;
})()</script>`
	other := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := r.Cookie(cookieOf(b.base)); err == nil {
			sent.Store(true)
		}
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, attacks)
	}))
	defer other.Close()
	ctx, end := chromedp.NewContext(b.ctx) // a tab of its own, in the same browser
	defer end()
	var title string
	run, cancel := context.WithTimeout(ctx, cluster.Patience)
	defer cancel()
	if err := chromedp.Run(ctx, chromedp.Navigate(other.URL+"/ui/")); err != nil {
		b.t.Fatal(err)
	}
	if err := chromedp.Run(run, chromedp.Poll(`document.title.startsWith("read")`, nil, chromedp.WithPollingTimeout(0)), chromedp.Title(&title)); err != nil {
		b.t.Fatal(err)
	}
	if title != "read refused, socket refused" {
		b.t.Errorf("the other page could: %s", title)
	}
	if !sent.Load() {
		b.t.Error("the browser did not send the session's cookie along, so that nothing was tested")
	}
	for _, name := range []string{"forged", "blind", "asked"} {
		if out := b.c.Kubectl("get", "configmap", name, "--ignore-not-found"); out != "" {
			b.t.Errorf("the other page made %s", out)
		}
	}
	if _, err := b.c.TryKubectl("exec", "talker", "--", "ls", "/tmp/owned"); err == nil {
		b.t.Error("the other page ran a command in a pod")
	}
	b.goTo("pods") // the session is still there
	b.sees(".rows", "talker")
}

// cookieOf is the name of the session's cookie, which carries the port.
func cookieOf(base string) string { return "__Secure-skiff-" + base[strings.LastIndex(base, ":")+1:] }

// uiHostileKind: a custom resource whose columns, labels and fields would run if they were taken for anything but text.
func uiHostileKind(b *browser) {
	b.c.Apply(`
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: traps.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {kind: Trap, plural: traps}
  versions:
    - name: v1
      served: true
      storage: true
      additionalPrinterColumns: [{name: '` + hostile + `', type: string, jsonPath: .spec.text, description: '` + hostile + `'}]
      schema: {openAPIV3Schema: {type: object, description: '` + hostile + `', x-kubernetes-preserve-unknown-fields: true}}
`)
	b.c.Kubectl("wait", "crd/traps.example.com", "--for=condition=Established", "--timeout=3m")
	b.c.Apply("apiVersion: example.com/v1\nkind: Trap\nmetadata: {name: trap, annotations: {note: '" + hostile + "'}}\nspec: {text: '" + hostile + "'}\n")
	b.do(chromedp.Reload()) // kinds are asked for once
	b.sees(".who", "kubernetes-admin")
	b.goTo("list/example.com/v1/traps")
	b.sees(".head", hostile)
	b.sees(".rows", hostile)
	b.goTo("object/example.com/v1/traps/default/trap")
	b.sees(".cm-content", "onerror")
}

// TestNoDashboard: with the flag there is no page, and whoever asks for it is told.
func TestNoDashboard(t *testing.T) {
	t.Parallel()
	c := cluster.New(t, "--no-agent", "--no-scheduler", "--no-dashboard")
	c.Server()
	if out, err := c.TryKubectl("get", "--raw", "/ui/"); err == nil || !strings.Contains(out, "could not find the requested resource") {
		t.Errorf("/ui/: %v, %.300s", err, out)
	}
	if out, err := c.Skiff("dashboard"); err == nil || !strings.Contains(out, "it was started with --no-dashboard") {
		t.Errorf("skiff dashboard: %v, %s", err, out)
	}
	becomes(t, "the add-on's state", func() bool {
		out, err := c.Skiff("addon", "show", "dashboard", "--data-dir", c.DataDir)
		return err == nil && strings.Contains(out, "Disabled") && strings.Contains(out, "the server was started with --no-dashboard")
	})
	if out, err := c.Skiff("addon", "enable", "dashboard", "--wait", "--data-dir", c.DataDir); err == nil || !strings.Contains(out, "cannot be there: the server was started with --no-dashboard") {
		t.Errorf("skiff addon enable dashboard: %v, %s", err, out)
	}
}
