package test

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"

	"skiff.dev/skiff/test/cluster"
)

// sessionsAudit records what happens in one namespace.
const sessionsAudit = `
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: RequestResponse, namespaces: [audited], resources: [{group: "", resources: [configmaps]}]}
- {level: Metadata, namespaces: [audited]}
- {level: None}
`

// TestSessions walks through what people do with kubectl, area by area, on one server.
func TestSessions(t *testing.T) {
	t.Parallel()
	log := filepath.Join(t.TempDir(), "audit.log")
	c := cluster.New(t, "--no-agent", "--audit-policy-file="+write(t, sessionsAudit), "--audit-log-path="+log)
	c.Server()
	c = c.With(stockKubectl(t))
	for name, walk := range map[string]func(*testing.T, *cluster.Cluster){
		"explain": kindsExplained, "life of an object": objectLife, "get": gotten, "watch": watched, "delete and wait": deletedAndAwaited,
		"who may": whoMay, "escalation": escalated, "certificates": certified, "policies": policed, "quotas": limited, "pod security": podsSecured,
		"flows and health": flowing,
		"audit":            func(t *testing.T, c *cluster.Cluster) { audited(t, c, log) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			walk(t, c.For(t))
		})
	}
}

// fed runs kubectl, which must succeed, with a manifest to read.
func fed(t *testing.T, c *cluster.Cluster, manifest string, args ...string) string {
	t.Helper()
	out, err := tryFed(c, manifest, args...)
	if err != nil {
		t.Fatalf("kubectl %v: %v\n%s", args, err, out)
	}
	return out
}

func tryFed(c *cluster.Cluster, manifest string, args ...string) (string, error) {
	cmd := c.KubectlCommand(append(args, "-f", "-")...)
	cmd.Stdin = strings.NewReader("# YAML, whatever it begins with\n" + manifest)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// says checks all that kubectl prints, warnings included.
func says(t *testing.T, c *cluster.Cluster, want string, args ...string) {
	t.Helper()
	out, err := c.TryKubectl(args...)
	if err != nil || !strings.Contains(out, want) {
		t.Errorf("kubectl %s: %v, want %q in\n%s", strings.Join(args, " "), err, want, out)
	}
}

// kindsExplained: every kind that can be stored has a schema that kubectl explains to its last field.
func kindsExplained(t *testing.T, c *cluster.Cluster) {
	lines := strings.Split(strings.TrimSpace(c.Kubectl("api-resources", "--no-headers", "--sort-by=name")), "\n")
	if len(lines) < 65 {
		t.Errorf("%d resources", len(lines))
	}
	for _, line := range lines {
		cells := strings.Fields(line)
		n := len(cells)
		plural, version, kind := cells[0], cells[n-3], cells[n-1]
		out, err := c.TryKubectl("explain", plural, "--recursive", "--api-version="+version)
		if err != nil || !strings.Contains(out, "KIND:       "+kind+"\n") || !strings.Contains(out, "  apiVersion\t<string>") || !strings.Contains(out, "  metadata\t<ObjectMeta>") {
			t.Errorf("explain %s of %s: %v\n%.500s", plural, version, err, out)
		}
	}
	match(t, c, `deployments +deploy +apps/v1 +true +Deployment +create,delete,deletecollection,get,list,patch,update,watch +all`, "api-resources", "--api-group=apps", "-o", "wide")
	match(t, c, `(?s)FIELD: containerPort <integer>.*must be a valid port`, "explain", "pod.spec.containers.ports.containerPort")
	turnedDown(t, c, `field "bogus" does not exist`, "explain", "pod.spec.bogus")
}

const walkedDeployment = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: NAME, labels: {app: NAME}}
spec:
  replicas: 2
  selector: {matchLabels: {app: NAME}}
  template:
    metadata: {labels: {app: NAME}}
    spec: {containers: [{name: web, image: "none:1"}]}
`

func walked(name string) string { return strings.ReplaceAll(walkedDeployment, "NAME", name) }

// edit runs kubectl edit with a sed script for an editor.
func edit(c *cluster.Cluster, script string, args ...string) (string, error) {
	cmd := c.KubectlCommand(append([]string{"edit"}, args...)...)
	cmd.Env = append(cmd.Environ(), "KUBE_EDITOR=sed -i "+script)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func objectLife(t *testing.T, c *cluster.Cluster) {
	c = c.Space(t, "objects")
	web := walked("web")
	fed(t, c, web, "create")
	if out, err := tryFed(c, web, "create"); err == nil || !strings.Contains(out, `deployments.apps "web" already exists`) {
		t.Errorf("created twice: %v\n%s", err, out)
	}
	if out := fed(t, c, web, "apply"); !strings.Contains(out, "is missing the kubectl.kubernetes.io/last-applied-configuration annotation") || !strings.Contains(out, "web configured") {
		t.Errorf("apply of what was created: %s", out)
	}
	if out := fed(t, c, web, "apply"); !strings.Contains(out, "web unchanged") {
		t.Errorf("apply of the same: %s", out)
	}
	three := strings.Replace(web, "replicas: 2", "replicas: 3", 1)
	if out, err := tryFed(c, three, "diff"); err == nil || !strings.Contains(out, "-  replicas: 2\n+  replicas: 3\n") {
		t.Errorf("diff: %v\n%s", err, out)
	}
	fed(t, c, three, "apply")
	if out, err := tryFed(c, three, "diff"); err != nil {
		t.Errorf("diff of what is there: %v\n%s", err, out)
	}
	if out, err := edit(c, `s/replicas:.3/replicas:\ 1/`, "deployment/web"); err != nil || !strings.Contains(out, "web edited") {
		t.Errorf("edit: %v\n%s", err, out)
	}
	if out, err := edit(c, `s/image:.none/imag:\ none/`, "deployment/web"); err == nil || !strings.Contains(out, `unknown field "spec.template.spec.containers[0].imag"`) {
		t.Errorf("edit of an unknown field: %v\n%s", err, out)
	}
	match(t, c, `^1$`, "get", "deployment", "web", "-o", "jsonpath={.spec.replicas}")
	uid := c.Kubectl("get", "deployment", "web", "-o", "jsonpath={.metadata.uid}")
	fed(t, c, web, "replace")
	match(t, c, "^2 "+uid+"$", "get", "deployment", "web", "-o", "jsonpath={.spec.replicas} {.metadata.uid}")
	fed(t, c, web, "replace", "--force")
	if now := c.Kubectl("get", "deployment", "web", "-o", "jsonpath={.metadata.uid}"); now == uid {
		t.Error("replace --force kept the object")
	}
	c.Kubectl("patch", "deployment", "web", "-p", `{"spec":{"template":{"spec":{"containers":[{"name":"web","tty":true}]}}}}`)
	match(t, c, `^none:1 true$`, "get", "deployment", "web", "-o", "jsonpath={.spec.template.spec.containers[*].image} {.spec.template.spec.containers[*].tty}")
	turnedDown(t, c, "testing value /spec/replicas failed", "patch", "deployment", "web", "--type=json", "-p", `[{"op":"test","path":"/spec/replicas","value":9}]`)
	turnedDown(t, c, `spec.replicas: Invalid value: -1: must be greater than or equal to 0`, "patch", "deployment", "web", "-p", `{"spec":{"replicas":-1}}`)
	turnedDown(t, c, "field is immutable", "patch", "deployment", "web", "-p", `{"spec":{"selector":{"matchLabels":{"x":"y"}}}}`)
	turnedDown(t, c, "'app' already has a value (web), and --overwrite is false", "label", "deployment", "web", "app=other")
	c.Kubectl("label", "--overwrite", "deployment", "web", "app=other", "more=1")
	c.Kubectl("label", "deployment", "web", "more-")
	c.Kubectl("annotate", "deployment", "web", "note=a b")
	match(t, c, `^other  a b$`, "get", "deployment", "web", "-o", "jsonpath={.metadata.labels.app} {.metadata.labels.more} {.metadata.annotations.note}")
	turnedDown(t, c, "Expected replicas to be 9, was 2", "scale", "deployment/web", "--current-replicas=9", "--replicas=4")
	c.Kubectl("scale", "deployment/web", "--replicas=4")
	match(t, c, `NAME +DESIRED +AVAILABLE +AGE\nweb +4 +\d +\d+s`, "get", "deployment", "web", "--subresource=scale")
	c.Kubectl("set", "image", "deployment/web", "web=none:2")
	cluster.Eventually(t, func() error {
		if out := c.Kubectl("rollout", "history", "deployment/web"); !regexp.MustCompile(`(?m)^2 +<none>$`).MatchString(out) {
			return fmt.Errorf("there are the revisions %s", out)
		}
		return nil
	})
	if out := squeeze(c.Kubectl("describe", "deployment", "web")); !strings.Contains(out, "Replicas: 4 desired") || !strings.Contains(out, "Image: none:2") ||
		!strings.Contains(out, "ScalingReplicaSet") {
		t.Errorf("describe: %s", out)
	}
}

func gotten(t *testing.T, c *cluster.Cluster) {
	c = c.Space(t, "gotten")
	var all strings.Builder
	for i := range 12 {
		fmt.Fprintf(&all, "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: cm-%02d, labels: {third: '%d'}}\ndata: {a: '%02d'}\n", i, i%3, 11-i)
	}
	fed(t, c, all.String(), "create")
	if out := c.Kubectl("get", "configmaps", "--chunk-size=5", "-o", "name", "-l", "third"); strings.Count(out, "\n") != 12 {
		t.Errorf("in chunks: %s", out)
	}
	if out, err := c.TryKubectl("get", "configmaps", "--chunk-size=5", "-v=8"); err != nil || strings.Count(out, "&limit=5") < 2 {
		t.Errorf("no continuation was asked for: %v\n%s", err, out)
	}
	match(t, c, `^configmap/cm-11\nconfigmap/cm-10\n`, "get", "configmaps", "-l", "third", "--sort-by=.data.a", "-o", "name")
	match(t, c, `^configmap/cm-01\nconfigmap/cm-04\nconfigmap/cm-07\nconfigmap/cm-10\n$`, "get", "configmaps", "-l", "third in (1)", "-o", "name")
	match(t, c, `^configmap/cm-03\n$`, "get", "configmaps", "--field-selector=metadata.name=cm-03", "-o", "name")
	turnedDown(t, c, `"data.a" is not a known field selector: only "metadata.name", "metadata.namespace"`, "get", "configmaps", "--field-selector=data.a=1")
	turnedDown(t, c, "field label not supported: spec.bogus", "get", "pods", "--field-selector=spec.bogus=1")
	for form, want := range map[string]string{
		"json": `(?s)^{.*"kind": "ConfigMap"`, "yaml": `(?s)^apiVersion: v1\ndata:\n  a: "08"\nkind: ConfigMap\n`, "wide": `^NAME +DATA +AGE\ncm-03 +1 +`, "name": `^configmap/cm-03\n$`,
		"jsonpath={.data.a}": `^08$`, "go-template={{.data.a}}": `^08$`, "custom-columns=N:.metadata.name,A:.data.a": `^N +A\ncm-03 +08\n$`, "jsonpath-as-json={.data}": `"a": "08"`,
	} {
		match(t, c, want, "get", "configmap", "cm-03", "-o", form)
	}
	match(t, c, `(?m)^cm-04 +1 +\d+s +1$`, "get", "configmaps", "-L", "third")
	match(t, c, `third=1`, "get", "configmaps", "cm-04", "--show-labels")
	turnedDown(t, c, `configmaps "none" not found`, "get", "configmap", "cm-03", "none")
	turnedDown(t, c, `the server doesn't have a resource type "nonsense"`, "get", "nonsense")
	if out := c.Kubectl("delete", "configmaps", "-l", "third=2"); strings.Count(out, "deleted") != 4 {
		t.Errorf("deleted by a selector: %s", out)
	}
}

func watched(t *testing.T, c *cluster.Cluster) {
	c = c.Space(t, "watched")
	watch := start(t, c.KubectlCommand("get", "configmaps", "-l", "watch=yes", "--watch", "--output-watch-events"))
	c.Kubectl("create", "configmap", "w")
	c.Kubectl("label", "configmap", "w", "watch=yes")
	watch.waitFor(t, regexp.MustCompile(`^ADDED +w +0 `))
	c.Kubectl("patch", "configmap", "w", "-p", `{"data":{"a":"b"}}`)
	watch.waitFor(t, regexp.MustCompile(`^MODIFIED +w +1 `))
	c.Kubectl("label", "configmap", "w", "watch-")
	watch.waitFor(t, regexp.MustCompile(`^DELETED +w +1 `))
}

func deletedAndAwaited(t *testing.T, c *cluster.Cluster) {
	c = c.Space(t, "deleted")
	for _, how := range []string{"background", "foreground", "orphan"} {
		fed(t, c, walked(how), "create")
		cluster.Eventually(t, func() error {
			if out := c.Kubectl("get", "replicasets,pods", "-l", "app="+how, "-o", "name"); strings.Count(out, "\n") != 3 {
				return fmt.Errorf("there are %s", out)
			}
			return nil
		})
		c.Kubectl("delete", "deployment", how, "--cascade="+how, "--timeout=3m")
		if out := c.Kubectl("get", "replicasets,pods", "-l", "app="+how, "-o", "name"); how == "foreground" && out != "" || how == "orphan" && strings.Count(out, "\n") != 3 {
			t.Errorf("after --cascade=%s there are %q", how, out)
		}
	}
	c.Kubectl("wait", "replicasets", "-l", "app=background", "--for=delete", "--timeout=3m")
	if out := c.Kubectl("get", "replicasets", "-l", "app=orphan", "-o", "jsonpath={.items[*].metadata.ownerReferences}"); out != "" {
		t.Errorf("an orphan still has the owner %s", out)
	}
	made := start(t, c.KubectlCommand("wait", "configmap/late", "--for=create", "--timeout=3m"))
	c.Kubectl("create", "configmap", "late", "--from-literal=a=b")
	made.waitFor(t, regexp.MustCompile(`^configmap/late condition met$`))
	says(t, c, "configmap/late condition met", "wait", "configmap/late", "--for=jsonpath={.data.a}=b", "--timeout=3m")
	turnedDown(t, c, "timed out waiting for the condition on configmaps/late", "wait", "configmap/late", "--for=jsonpath={.data.a}=c", "--timeout=1s")
	c.Kubectl("patch", "configmap", "late", "-p", `{"metadata":{"finalizers":["example.com/hold"]}}`)
	c.Kubectl("delete", "configmap", "late", "--wait=false")
	turnedDown(t, c, "timed out waiting", "wait", "configmap/late", "--for=delete", "--timeout=1s")
	c.Kubectl("patch", "configmap", "late", "-p", `{"metadata":{"finalizers":null}}`)
	c.Kubectl("wait", "configmap/late", "--for=delete", "--timeout=3m")
}

func whoMay(t *testing.T, c *cluster.Cluster) {
	c = c.Space(t, "who-may")
	const robot = "--as=system:serviceaccount:who-may:robot"
	c.Kubectl("create", "serviceaccount", "robot")
	c.Kubectl("create", "role", "reader", "--verb=get,list", "--resource=configmaps")
	c.Kubectl("create", "rolebinding", "reader", "--role=reader", "--serviceaccount=who-may:robot")
	match(t, c, `^yes\n$`, "auth", "can-i", "list", "configmaps", robot)
	turnedDown(t, c, "no\n", "auth", "can-i", "delete", "configmaps", robot)
	turnedDown(t, c, "no\n", "auth", "can-i", "list", "configmaps", "--namespace=default", robot)
	turnedDown(t, c, "no\n", "auth", "can-i", "get", "/metrics", "--as=jo")
	match(t, c, `(?m)^configmaps +\[\] +\[\] +\[get list\]$`, "auth", "can-i", "--list", robot)
	match(t, c, `(?s)Username +jo\nUID +42\nGroups +\[devs system:authenticated\]`, "auth", "whoami", "--as=jo", "--as-group=devs", "--as-uid=42")
	turnedDown(t, c, `configmaps is forbidden: User "jo" cannot list resource "configmaps" in API group "" in the namespace "who-may"`, "get", "configmaps", "--as=jo")
	turnedDown(t, c, `nodes is forbidden: User "jo" cannot list resource "nodes" in API group "" at the cluster scope`, "get", "nodes", "--as=jo")
	turnedDown(t, c, `forbidden: User "jo" cannot get path "/metrics"`, "get", "--raw=/metrics", "--as=jo")
	turnedDown(t, c, "may not specify a duration less than 10 minutes", "create", "token", "robot", "--duration=1m")
	turnedDown(t, c, `serviceaccounts "nobody" not found`, "create", "token", "nobody")
	// --token beside the administrator's certificate would be the administrator: a kubeconfig with nothing but the token.
	robots := c.With(stockKubectl(t), "--kubeconfig="+tokenConfig(t, c, strings.TrimSpace(c.Kubectl("create", "token", "robot"))))
	match(t, robots, `Username +system:serviceaccount:who-may:robot\n`, "auth", "whoami")
	match(t, robots, `configmap/kube-root-ca.crt`, "get", "configmaps", "-o", "name")
	turnedDown(t, robots, `User "system:serviceaccount:who-may:robot" cannot list resource "secrets"`, "get", "secrets")
	c.Kubectl("delete", "serviceaccount", "robot")
	cluster.Eventually(t, func() error {
		if out, err := robots.TryKubectl("get", "configmaps"); err == nil || !strings.Contains(out, "must be logged in") {
			return fmt.Errorf("its account is gone, and the token says %v: %s", err, out)
		}
		return nil
	})
}

// tokenConfig is a kubeconfig with a token in place of the administrator's certificate.
func tokenConfig(t *testing.T, c *cluster.Cluster, token string) string {
	t.Helper()
	cfg := c.RESTConfig()
	return write(t, fmt.Sprintf(`
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "%s", certificate-authority-data: %s}}]
users: [{name: u, user: {token: %s}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
`, cfg.Host, base64.StdEncoding.EncodeToString(cfg.CAData), token))
}

func escalated(t *testing.T, c *cluster.Cluster) {
	c = c.Space(t, "escalated")
	c.Kubectl("create", "role", "maker", "--verb=create,get,update,patch", "--resource=roles,rolebindings")
	c.Kubectl("create", "rolebinding", "maker", "--role=maker", "--user=mallory")
	const refusal = `user "mallory" (groups=["system:authenticated"]) is attempting to grant RBAC permissions not currently held:`
	turnedDown(t, c, refusal+"\n"+`{APIGroups:[""], Resources:["secrets"], Verbs:["get"]}`, "create", "role", "evil", "--verb=get", "--resource=secrets", "--as=mallory")
	turnedDown(t, c, refusal, "create", "rolebinding", "evil", "--clusterrole=admin", "--user=mallory", "--as=mallory")
	c.Kubectl("create", "role", "fine", "--verb=create", "--resource=roles", "--as=mallory")
	turnedDown(t, c, refusal, "patch", "role", "fine", "--type=json", "-p", `[{"op":"add","path":"/rules/0/verbs/-","value":"escalate"}]`, "--as=mallory")
	c.Kubectl("create", "role", "escalator", "--verb=escalate,bind", "--resource=roles")
	c.Kubectl("create", "rolebinding", "escalator", "--role=escalator", "--user=mallory")
	cluster.Eventually(t, func() error {
		out, err := c.TryKubectl("create", "role", "evil", "--verb=get", "--resource=secrets", "--as=mallory")
		if err != nil && !strings.Contains(out, "already exists") {
			return fmt.Errorf("who may escalate is refused: %s", out)
		}
		return nil
	})
	fed(t, c, "{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: walked-parts, labels: {walked: 'yes'}}, rules: [{apiGroups: [''], resources: [nodes], verbs: [get]}]}\n---\n"+
		"{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: walked-whole}, aggregationRule: {clusterRoleSelectors: [{matchLabels: {walked: 'yes'}}]}}\n", "auth", "reconcile")
	cluster.Eventually(t, func() error {
		if out := c.Kubectl("describe", "clusterrole", "walked-whole"); !regexp.MustCompile(`nodes +\[\] +\[\] +\[get\]`).MatchString(out) {
			return fmt.Errorf("it is not aggregated:\n%s", out)
		}
		return nil
	})
}

// clientRequest makes a manifest with a request for a client's certificate, and its key.
func clientRequest(t *testing.T, name string, key *ecdsa.PrivateKey) string {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "ann", Organization: []string{"walkers"}}}, key)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf(`
apiVersion: certificates.k8s.io/v1
kind: CertificateSigningRequest
metadata: {name: %s}
spec: {signerName: kubernetes.io/kube-apiserver-client, usages: [client auth], expirationSeconds: 3600, request: %s}
`, name, base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})))
}

func certified(t *testing.T, c *cluster.Cluster) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	fed(t, c, clientRequest(t, "ann", key)+"---"+clientRequest(t, "bob", key), "create")
	match(t, c, `ann +\d+s +kubernetes.io/kube-apiserver-client +\S+ +60m +Pending`, "get", "csr", "ann")
	c.Kubectl("certificate", "approve", "ann")
	c.Kubectl("certificate", "deny", "bob")
	cluster.Eventually(t, func() error {
		if out := c.Kubectl("get", "csr", "ann", "bob"); !strings.Contains(out, "Approved,Issued") || !strings.Contains(out, "Denied") {
			return fmt.Errorf("they are %s", out)
		}
		return nil
	})
	turnedDown(t, c, `"ann" is already Approved`, "certificate", "deny", "ann")
	match(t, c, `(?s)Requested Duration: +60m.*Status: +Approved,Issued.*Common Name: +ann.*Organization: +walkers`, "describe", "csr", "ann")
	cert, err := base64.StdEncoding.DecodeString(c.Kubectl("get", "csr", "ann", "-o", "jsonpath={.status.certificate}"))
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	asAnn := []string{
		"--client-certificate=" + write(t, string(cert)), "--client-key=" + write(t, string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}))),
		"--kubeconfig=" + tokenConfig(t, c, `""`),
	}
	match(t, c, `Username +ann\nGroups +\[walkers system:authenticated\]`, append(asAnn, "auth", "whoami")...)
	c.Kubectl("create", "clusterrole", "walked-csr", "--verb=create,get,update", "--resource=certificatesigningrequests,certificatesigningrequests/approval")
	c.Kubectl("create", "clusterrolebinding", "walked-csr", "--clusterrole=walked-csr", "--group=walkers")
	fed(t, c, clientRequest(t, "eve", key), append(asAnn, "create")...)
	turnedDown(t, c, `user not permitted to approve requests with signerName "kubernetes.io/kube-apiserver-client"`, append(asAnn, "certificate", "approve", "eve")...)
}

const walkedPolicies = `
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: walked-replicas}
spec:
  paramKind: {apiVersion: v1, kind: ConfigMap}
  matchConstraints: {resourceRules: [{apiGroups: [apps], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [deployments]}]}
  matchConditions: [{name: not-exempt, expression: "!has(object.metadata.labels) || !('exempt' in object.metadata.labels)"}]
  variables: [{name: most, expression: "int(params.data.most)"}]
  validations:
  - {expression: "object.spec.replicas <= variables.most", messageExpression: "'at most ' + string(variables.most) + ' replicas'", reason: Forbidden}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: walked-replicas}
spec:
  policyName: walked-replicas
  validationActions: [Deny]
  paramRef: {name: limits, namespace: policed, parameterNotFoundAction: Deny}
  matchResources: {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: policed}}}
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicy
metadata: {name: walked-tier}
spec:
  paramKind: {apiVersion: v1, kind: ConfigMap}
  reinvocationPolicy: Never
  matchConstraints: {resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods]}]}
  mutations:
  - {patchType: ApplyConfiguration, applyConfiguration: {expression: "Object{metadata: Object.metadata{labels: {'tier': params.data.most}}}"}}
  - {patchType: JSONPatch, jsonPatch: {expression: "[JSONPatch{op: 'add', path: '/metadata/annotations', value: {'by': 'policy'}}]"}}
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicyBinding
metadata: {name: walked-tier}
spec:
  policyName: walked-tier
  paramRef: {name: limits, namespace: policed, parameterNotFoundAction: Deny}
  matchResources: {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: policed}}}
`

func policed(t *testing.T, c *cluster.Cluster) {
	c = c.Space(t, "policed")
	c.Kubectl("create", "configmap", "limits", "--from-literal=most=3")
	fed(t, c, walkedPolicies, "create")
	const denied = `ValidatingAdmissionPolicy 'walked-replicas' with binding 'walked-replicas' denied request: `
	turnedDown(t, c, `deployments.apps "d" is forbidden: `+denied+"at most 3 replicas", "create", "deployment", "d", "--image=x", "--replicas=5")
	c.Kubectl("create", "deployment", "d", "--image=x", "--replicas=2")
	turnedDown(t, c, denied, "patch", "deployment", "d", "-p", `{"spec":{"replicas":7}}`)
	c.Kubectl("patch", "deployment", "d", "-p", `{"metadata":{"labels":{"exempt":""}},"spec":{"replicas":7}}`)
	c.Kubectl("run", "p", "--image=x")
	match(t, c, `^3 policy$`, "get", "pod", "p", "-o", "jsonpath={.metadata.labels.tier} {.metadata.annotations.by}")
	match(t, c, `walked-replicas +1 +v1/ConfigMap +\d+s`, "get", "validatingadmissionpolicy", "walked-replicas")
	match(t, c, `walked-tier +walked-tier +policed/limits +\d+s`, "get", "mutatingadmissionpolicybinding", "walked-tier")
	c.Kubectl("delete", "configmap", "limits")
	turnedDown(t, c, denied+"failed to configure binding: no params found", "create", "deployment", "e", "--image=x")
	turnedDown(t, c, "policy 'walked-tier' with binding 'walked-tier' denied request: failed to configure binding: no params found", "run", "q", "--image=x")
	c.Kubectl("patch", "validatingadmissionpolicybinding", "walked-replicas", "--type=merge", "-p", `{"spec":{"validationActions":["Warn"]}}`)
	c.Kubectl("create", "configmap", "limits", "--from-literal=most=0")
	says(t, c, "Warning: Validation failed for ValidatingAdmissionPolicy 'walked-replicas' with binding 'walked-replicas': at most 0 replicas", "create", "deployment", "e", "--image=x")
	typo := `{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingAdmissionPolicy, metadata: {name: walked-typo}, spec: {matchConstraints: {resourceRules: [{apiGroups: [apps], apiVersions: [v1], operations: [CREATE], resources: [deployments]}]}, validations: [{expression: "object.spec.replica > END"}]}}`
	if out, err := tryFed(c, strings.Replace(typo, "END", "", 1), "create"); err == nil || !strings.Contains(out, "spec.validations[0].expression: Invalid value") || !strings.Contains(out, "Syntax error") {
		t.Errorf("%v: %s", err, out)
	}
	fed(t, c, strings.Replace(typo, "END", "1", 1), "create")
	cluster.Eventually(t, func() error {
		if out := c.Kubectl("get", "validatingadmissionpolicy", "walked-typo", "-o", "jsonpath={.status.typeChecking}"); !strings.Contains(out, "undefined field 'replica'") {
			return fmt.Errorf("type checking says %q", out)
		}
		return nil
	})
}

const walkedLimits = `
apiVersion: v1
kind: LimitRange
metadata: {name: sizes}
spec:
  limits:
  - {type: Container, max: {cpu: "2"}, min: {cpu: 10m}, default: {cpu: 200m, memory: 64Mi}, defaultRequest: {cpu: 100m}, maxLimitRequestRatio: {cpu: "4"}}
  - {type: Pod, max: {memory: 1Gi}}
`

func limited(t *testing.T, c *cluster.Cluster) {
	c = c.Space(t, "limited")
	fed(t, c, walkedLimits, "create")
	c.Kubectl("create", "quota", "q", "--hard=pods=2,requests.cpu=1,services=1")
	c.Kubectl("create", "quota", "best", "--hard=pods=1", "--scopes=BestEffort")
	c.Kubectl("wait", "quota/q", "--for=jsonpath={.status.hard.pods}=2", "--timeout=3m")
	c.Kubectl("run", "a", "--image=x")
	for _, line := range []string{`Container +cpu +10m +2 +100m +200m +4`, `Container +memory +- +- +- +64Mi +-`, `Pod +memory +- +1Gi +-`} { // kubectl's order is a map's
		match(t, c, `(?m)^`+line, "describe", "limits", "sizes")
	}
	match(t, c, `(?s)Resource +Used +Hard\n-+ +-+ +-+\npods +1 +2\nrequests.cpu +100m +1\nservices +0 +1\n`, "describe", "quota", "q")
	match(t, c, `(?s)Scopes: +BestEffort\n \* Matches all pods that do not have resource requirements set.*pods +0 +1\n`, "describe", "quota", "best")
	match(t, c, `q +pods: 1/2, requests.cpu: 100m/1, services: 0/1`, "get", "quota")
	match(t, c, `(?s)Resource Quotas.*requests.cpu +100m +1.*Resource Limits.*Container +cpu +10m +2`, "describe", "namespace", "limited")
	turnedDown(t, c, "maximum cpu usage per Container is 2, but limit is 3", "run", "b", "--image=x", "--overrides",
		`{"spec":{"containers":[{"name":"b","image":"x","resources":{"limits":{"cpu":"3"}}}]}}`)
	c.Kubectl("run", "b", "--image=x")
	turnedDown(t, c, "exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2", "run", "c", "--image=x")
	c.Kubectl("create", "service", "clusterip", "one", "--tcp=80")
	turnedDown(t, c, "exceeded quota: q, requested: services=1, used: services=1, limited: services=1", "create", "service", "clusterip", "two", "--tcp=80")
	c.Kubectl("delete", "pod", "a")
	c.Kubectl("wait", "quota/q", "--for=jsonpath={.status.used.pods}=1", "--timeout=3m")
	c.Kubectl("run", "c", "--image=x")
}

func podsSecured(t *testing.T, c *cluster.Cluster) {
	c = c.Space(t, "secured")
	c.Kubectl("label", "namespace", "secured", "pod-security.kubernetes.io/enforce=baseline", "pod-security.kubernetes.io/enforce-version=v1.30", "pod-security.kubernetes.io/warn=restricted")
	const would = `Warning: would violate PodSecurity "restricted:latest": allowPrivilegeEscalation != false (container "x" must set securityContext.allowPrivilegeEscalation=false)`
	says(t, c, would, "run", "x", "--image=x")
	says(t, c, would, "create", "deployment", "d", "--image=x")
	turnedDown(t, c, `pods "b" is forbidden: violates PodSecurity "baseline:v1.30": privileged (container "b" must not set securityContext.privileged=true)`, "run", "b", "--image=x", "--privileged")
	out, err := c.TryKubectl("label", "namespace", "secured", "pod-security.kubernetes.io/enforce=restricted", "--overwrite", "--dry-run=server")
	if err != nil || !strings.Contains(out, `Warning: existing pods in namespace "secured" violate the new PodSecurity enforce level "restricted:v1.30"`) {
		t.Errorf("a stricter level: %v\n%s", err, out)
	}
	turnedDown(t, c, "must be one of privileged, baseline, restricted", "label", "namespace", "secured", "pod-security.kubernetes.io/enforce=strict", "--overwrite")
	turnedDown(t, c, `must be "latest" or "v1.x"`, "label", "namespace", "secured", "pod-security.kubernetes.io/warn-version=x")
}

func flowing(t *testing.T, c *cluster.Cluster) {
	match(t, c, `(?m)^exempt +exempt +1 +<none> +\S+ +False$`, "get", "flowschemas")
	match(t, c, `(?m)^system-leader-election +leader-election +100 +ByUser +\S+ +False$`, "get", "flowschemas")
	match(t, c, `(?m)^workload-low +Limited +100 +128 +6 +50 +`, "get", "prioritylevelconfigurations")
	match(t, c, `(?s)^PriorityLevelName, +ActiveQueues, +IsIdle, .*\ncatch-all, .*\nworkload-low, +0, `, "get", "--raw=/debug/api_priority_and_fairness/dump_priority_levels")
	match(t, c, `(?m)^workload-low, +127, +\d+, `, "get", "--raw=/debug/api_priority_and_fairness/dump_queues")
	match(t, c, `(?m)^PriorityLevelName, .*StartTime, +UserName, +Verb, `, "get", "--raw=/debug/api_priority_and_fairness/dump_requests?includeRequestDetails=1")
	turnedDown(t, c, `User "jo" cannot get path "/debug/api_priority_and_fairness/dump_requests"`, "get", "--raw=/debug/api_priority_and_fairness/dump_requests", "--as=jo")
	match(t, c, `(?m)^\[\+\]etcd ok$`, "get", "--raw=/readyz?verbose")
	match(t, c, `(?m)^\[\+\]etcd excluded: ok$`, "get", "--raw=/readyz?verbose&exclude=etcd")
	match(t, c, `(?m)^apiserver_request_total\{.*resource="flowschemas".*verb="LIST".*\} \d+$`, "get", "--raw=/metrics")
	match(t, c, `(?m)^v1.apps +Local +True +`, "get", "apiservices")
}

// audited reads back what the audit log says of what was done.
func audited(t *testing.T, c *cluster.Cluster, log string) {
	c = c.Space(t, "audited")
	c.Kubectl("create", "configmap", "a", "--from-literal=k=v")
	c.Kubectl("create", "secret", "generic", "s", "--from-literal=password=swordfish")
	turnedDown(t, c, "forbidden", "get", "configmap", "a", "--as=jo")
	c.Kubectl("delete", "configmap", "a", "--grace-period=3")
	cluster.Eventually(t, func() error {
		raw, err := os.ReadFile(log)
		if err != nil {
			return err
		}
		if bytes.Contains(raw, []byte("swordfish")) {
			t.Error("a secret's value is in the log")
		}
		seen := map[string]auditv1.Event{}
		lines := bufio.NewScanner(bytes.NewReader(raw))
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			var e auditv1.Event
			if json.Unmarshal(lines.Bytes(), &e) == nil && e.ObjectRef != nil {
				who := ""
				if e.ImpersonatedUser != nil {
					who = " as " + e.ImpersonatedUser.Username
				}
				seen[e.Verb+" "+e.ObjectRef.Resource+"/"+e.ObjectRef.Name+who] = e
			}
		}
		created, secret, deleted := seen["create configmaps/a"], seen["create secrets/s"], seen["delete configmaps/a"]
		switch {
		case created.RequestObject == nil || created.ResponseObject == nil || !strings.Contains(created.UserAgent, "kubectl"):
			return fmt.Errorf("the creation is %+v", created)
		case secret.Level != auditv1.LevelMetadata || secret.RequestObject != nil || secret.ResponseStatus == nil || secret.ResponseStatus.Code != 201:
			return fmt.Errorf("the secret is %+v", secret)
		case seen["get configmaps/a as jo"].ResponseStatus == nil:
			return fmt.Errorf("the impersonation is not in the log:\n%s", raw)
		case seen["get configmaps/a as jo"].Annotations["authorization.k8s.io/decision"] != "forbid", created.Annotations["authorization.k8s.io/decision"] != "allow":
			return fmt.Errorf("the decisions are not in the log:\n%s", raw)
		case deleted.RequestObject == nil || !strings.Contains(string(deleted.RequestObject.Raw), `"gracePeriodSeconds":3`) || deleted.ResponseObject == nil:
			return fmt.Errorf("the deletion is %+v", deleted)
		}
		return nil
	})
}
