package test

import (
	"strings"
	"testing"

	"skiff.dev/skiff/test/cluster"
)

const applied = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: ssa, labels: {mine: "1", other: "2"}}
spec:
  replicas: 0
  selector: {matchLabels: {app: ssa}}
  template:
    metadata: {labels: {app: ssa}}
    spec:
      containers:
      - name: one
        image: skiff/web
        env: [{name: A, value: "1"}, {name: B, value: "2"}]
      - name: two
        image: skiff/web
`

// TestServerSideApply is what users of kubectl apply --server-side see: ownership, conflicts, removal, and the way there from the client's apply.
func TestServerSideApply(t *testing.T) {
	t.Parallel()
	c := cluster.New(t)
	c.Server()
	c = c.With(stockKubectl(t))
	t.Run("life of an object", func(t *testing.T) { appliedLife(t, c.Space(t, "life")) })
	t.Run("conflicts", func(t *testing.T) { appliedConflicts(t, c.Space(t, "conflicts")) })
	t.Run("from the client's apply", func(t *testing.T) { appliedMigration(t, c.Space(t, "migration")) })
	t.Run("scale and status", func(t *testing.T) { appliedSubresources(t, c.Space(t, "subresources")) })
	t.Run("what parts made", func(t *testing.T) { appliedToParts(t, c.For(t)) })
}

// serverSide applies a manifest and returns what kubectl said.
func serverSide(c *cluster.Cluster, manifest string, flags ...string) (string, error) {
	cmd := c.KubectlCommand(append([]string{"apply", "--server-side", "-f", "-"}, flags...)...)
	cmd.Stdin = strings.NewReader("# YAML, whatever it begins with\n" + manifest)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func mustServerSide(t *testing.T, c *cluster.Cluster, manifest string, flags ...string) {
	t.Helper()
	if out, err := serverSide(c, manifest, flags...); err != nil || !strings.Contains(out, "serverside-applied") {
		t.Fatalf("%v\n%s", err, out)
	}
}

// shows checks one JSON path of the Deployment.
func shows(t *testing.T, c *cluster.Cluster, path, want string) {
	t.Helper()
	if got := c.Kubectl("get", "deployment", "ssa", "--show-managed-fields", "-o", "jsonpath="+path); got != want {
		t.Errorf("%s is %q, want %q", path, got, want)
	}
}

func appliedLife(t *testing.T, c *cluster.Cluster) {
	if out, err := serverSide(c, applied, "--dry-run=server"); err != nil || !strings.Contains(out, "serverside-applied (server dry run)") {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err := c.TryKubectl("get", "deployment", "ssa"); err == nil {
		t.Errorf("a dry run created\n%s", out)
	}
	mustServerSide(t, c, applied)
	shows(t, c, `{.metadata.managedFields[?(@.operation=="Apply")].manager}`, "kubectl")
	yaml := c.Kubectl("get", "deployment", "ssa", "-o", "yaml", "--show-managed-fields")
	for _, want := range []string{"fieldsType: FieldsV1", `k:{"name":"one"}:`, "manager: kubectl", "operation: Apply"} {
		if !strings.Contains(yaml, want) {
			t.Errorf("no %s in\n%s", want, yaml)
		}
	}
	if strings.Contains(c.Kubectl("get", "deployment", "ssa", "-o", "yaml"), "managedFields") {
		t.Error("kubectl shows managedFields unasked")
	}
	// An entry of an inner list, an item of the outer one and a key of a map go.
	less := strings.NewReplacer(`, {name: B, value: "2"}`, "", "      - name: two\n        image: skiff/web\n", "", `, other: "2"`, "").Replace(applied)
	mustServerSide(t, c, less)
	shows(t, c, "{.spec.template.spec.containers[*].name}", "one")
	shows(t, c, "{.spec.template.spec.containers[0].env[*].name}", "A")
	shows(t, c, "{.metadata.labels}", `{"mine":"1"}`)
	shows(t, c, "{.metadata.generation}", "2")
	mustServerSide(t, c, less)
	shows(t, c, "{.metadata.generation}", "2")
	out, err := serverSide(c, strings.Replace(applied, "replicas", "replica", 1))
	if err == nil || !strings.Contains(out, "failed to create typed patch object (life/ssa; apps/v1, Kind=Deployment): .spec.replica: field not declared in schema") {
		t.Errorf("%v\n%s", err, out)
	}
}

func appliedConflicts(t *testing.T, c *cluster.Cluster) {
	mustServerSide(t, c, applied)
	more := "{apiVersion: apps/v1, kind: Deployment, metadata: {name: ssa, labels: {mine: MINE, third: '3'}}}"
	out, err := serverSide(c, strings.Replace(more, "MINE", "'9'", 1), "--field-manager=other")
	for _, want := range []string{`Apply failed with 1 conflict: conflict with "kubectl": .metadata.labels.mine`, "--force-conflicts"} {
		if err == nil || !strings.Contains(out, want) {
			t.Errorf("%v\n%swant %s", err, out, want)
		}
	}
	mustServerSide(t, c, strings.Replace(more, "MINE", "'1'", 1), "--field-manager=other") // the same value is owned together
	mustServerSide(t, c, strings.Replace(applied, `mine: "1", `, "", 1))                   // and stays with the other
	shows(t, c, "{.metadata.labels}", `{"mine":"1","other":"2","third":"3"}`)
	mustServerSide(t, c, strings.Replace(more, "third: '3'", "other: '9'", 1), "--field-manager=other", "--force-conflicts")
	shows(t, c, "{.metadata.labels}", `{"mine":"MINE","other":"9"}`)
	if out, err = serverSide(c, applied); err == nil || !strings.Contains(out, `conflicts with "other":`) {
		t.Errorf("%v\n%s", err, out)
	}
	c.Kubectl("label", "deployment", "ssa", "fourth=4")
	shows(t, c, `{.metadata.managedFields[?(@.manager=="kubectl-label")].fieldsV1}`, `{"f:metadata":{"f:labels":{"f:fourth":{}}}}`)
}

func appliedMigration(t *testing.T, c *cluster.Cluster) {
	c.Apply(applied)
	shows(t, c, `{.metadata.managedFields[?(@.manager=="kubectl-client-side-apply")].operation}`, "Update")
	mustServerSide(t, c, strings.Replace(applied, `mine: "1", `, "", 1))
	shows(t, c, "{.metadata.labels}", `{"other":"2"}`)
	if last := c.Kubectl("get", "deployment", "ssa", "-o", `jsonpath={.metadata.annotations.kubectl\.kubernetes\.io/last-applied-configuration}`); strings.Contains(last, "mine") {
		t.Errorf("what was last applied is still %s", last)
	}
	c.Apply(strings.Replace(applied, `other: "2"`, `other: "3"`, 1)) // and back again
	shows(t, c, "{.metadata.labels}", `{"mine":"1","other":"3"}`)
}

func appliedSubresources(t *testing.T, c *cluster.Cluster) {
	mustServerSide(t, c, applied)
	c.Kubectl("scale", "deployment", "ssa", "--replicas=1")
	out, err := serverSide(c, applied)
	if err == nil || !strings.Contains(out, `conflict with "kubectl" with subresource "scale" using apps/v1`) || !strings.Contains(out, ".spec.replicas") {
		t.Errorf("%v\n%s", err, out)
	}
	mustServerSide(t, c, strings.Replace(applied, "  replicas: 0\n", "", 1))
	shows(t, c, "{.spec.replicas}", "1")
	mustServerSide(t, c, "{apiVersion: apps/v1, kind: Deployment, metadata: {name: ssa}, status: {conditions: [{type: Mine, status: 'True'}]}}",
		"--subresource=status", "--field-manager=mine")
	shows(t, c, `{.status.conditions[?(@.type=="Mine")].status}`, "True")
	shows(t, c, `{.metadata.managedFields[?(@.manager=="mine")].subresource}`, "status")
	c.Kubectl("patch", "deployment", "ssa", "--type=json", `--patch=[{"op":"replace","path":"/metadata/managedFields","value":[{}]}]`)
	mustServerSide(t, c, strings.Replace(applied, "replicas: 0", "replicas: 1", 1))
	shows(t, c, `{.metadata.managedFields[?(@.operation=="Update")].manager}`, "before-first-apply")
}

// appliedToParts applies to what parts of the cluster made and nobody tracked.
func appliedToParts(t *testing.T, c *cluster.Cluster) {
	namespace := func(value string) string {
		return "{apiVersion: v1, kind: Namespace, metadata: {name: default, labels: {kubernetes.io/metadata.name: " + value + ", mine: '1'}}}"
	}
	if out, err := serverSide(c, namespace("other")); err == nil || !strings.Contains(out, `conflict with "kube-apiserver" using v1`) {
		t.Errorf("%v\n%s", err, out)
	}
	mustServerSide(t, c, namespace("default"))
	mustServerSide(t, c, "{apiVersion: v1, kind: Namespace, metadata: {name: default}}")
	if got := c.Kubectl("get", "namespace", "default", "-o", "jsonpath={.metadata.labels}"); got != `{"kubernetes.io/metadata.name":"default"}` {
		t.Errorf("labels %s", got)
	}
}
