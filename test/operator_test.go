package test

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"k8s.io/client-go/util/cert"

	"skiff.dev/skiff/test/cluster"
	"skiff.dev/skiff/test/operator"
)

// replica is a process of the operator (package operator) beside an API server.
type replica struct {
	cmd  *exec.Cmd
	mu   sync.Mutex
	said bytes.Buffer
}

func (r *replica) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.said.Write(p)
}

func (r *replica) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.said.String()
}

// startOperator runs this test program again, as the operator.
func startOperator(t *testing.T, c *cluster.Cluster, port int, certs string) *replica {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r := &replica{cmd: c.Program(program)}
	r.cmd.Env = append(r.cmd.Env, fmt.Sprintf("%s=%d", operator.PortVariable, port), operator.CertsVariable+"="+certs)
	r.cmd.Stdout, r.cmd.Stderr = r, r
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = r.cmd.Process.Kill()
		_ = r.cmd.Wait()
		if t.Failed() {
			t.Logf("the operator on port %d said:\n%s", port, r)
		}
	})
	return r
}

// operatorCerts makes what its webhooks serve with.
func operatorCerts(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	certificate, key, err := cert.GenerateSelfSignedCertKey("127.0.0.1", []net.IP{net.IPv4(127, 0, 0, 1)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, raw := range map[string][]byte{"tls.crt": certificate, "tls.key": key} {
		if err := os.WriteFile(filepath.Join(dir, name), raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const hive = "apiVersion: bees.example.com/v1\nkind: Hive\nmetadata: {name: %s}\nspec: {bees: %d}\n"

// TestOperator: an operator made with controller-runtime and its webhooks work, survive the API server's crash, and one replica takes over from another.
func TestOperator(t *testing.T) {
	t.Parallel()
	c := cluster.New(t, "--no-agent", "--no-scheduler")
	c.Server()
	c.Apply(operator.Definition)
	c.Kubectl("wait", "--for=condition=Established", "crd/hives.bees.example.com", "--timeout=3m")
	certs := operatorCerts(t)
	leader := startOperator(t, c, 9443, certs)
	becomes(t, "the webhooks", func() bool {
		_, err := c.TryKubectl("get", "validatingwebhookconfiguration", "hives")
		return err == nil
	})
	other := startOperator(t, c, 9444, certs)

	counted := func(name, want string) {
		t.Helper()
		becomes(t, name+" with "+want+" bees", func() bool {
			bees, _ := c.TryKubectl("get", "configmap", name+"-bees", "-o", "jsonpath={.data.bees}")
			ready, _ := c.TryKubectl("get", "hive", name, "-o", `jsonpath={.metadata.generation}={.status.observedGeneration} {.status.conditions[?(@.type=="Ready")].status}`)
			seen, condition, _ := strings.Cut(ready, " ")
			generation, observed, _ := strings.Cut(seen, "=")
			return bees == want && condition == "True" && generation == observed
		})
	}
	c.Apply(fmt.Sprintf(hive, "one", 0))
	counted("one", "100")
	match(t, c, `^100$`, "get", "hive", "one", "-o", "jsonpath={.spec.bees}")
	if out := c.Apply(fmt.Sprintf(hive, "full", 501)); !strings.Contains(out, "Warning: the hive is rather full") {
		t.Errorf("no warning: %s", out)
	}
	turnedDown(t, c, `admission webhook "validate.bees.example.com" denied the request: spec.bees: 5000 bees do not fit`, "create", "-f", write(t, fmt.Sprintf(hive, "two", 5000)))
	turnedDown(t, c, `denied the request`, "patch", "hive", "one", "--type=merge", "-p", `{"spec":{"bees":1001}}`)
	c.Kubectl("patch", "configmap", "one-bees", "--type=merge", "-p", `{"data":{"bees":"none"}}`)
	counted("one", "100")
	becomes(t, "events", func() bool {
		return strings.Contains(c.Kubectl("get", "events", "--field-selector=involvedObject.name=one"), "Counted")
	})

	c.Kill()
	c.Server()
	c.Apply(fmt.Sprintf(hive, "after-crash", 7))
	counted("after-crash", "7")
	c.Kubectl("patch", "configmap", "one-bees", "--type=merge", "-p", `{"data":{"bees":"none"}}`)
	counted("one", "100")

	if err := leader.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := leader.cmd.Wait(); err != nil {
		t.Errorf("the leader ended with %v:\n%s", err, leader)
	}
	becomes(t, "the other replica's webhooks", func() bool {
		_, err := c.TryKubectl("create", "-f", write(t, fmt.Sprintf(hive, "after-handover", 8)))
		return err == nil
	})
	counted("after-handover", "8")
	c.Kubectl("delete", "hives", "--all", "--timeout=3m") // finalizers are seen to
	becomes(t, "what they owned to go", func() bool {
		return !strings.Contains(c.Kubectl("get", "configmaps", "-o", "name"), "-bees")
	})
	for name, r := range map[string]*replica{"leader": leader, "other": other} {
		if out := r.String(); !strings.Contains(out, "read hives watch=true initial=true code=200") || strings.Contains(out, "read hives watch= ") {
			t.Errorf("the %s does not read by streams:\n%s", name, out)
		}
	}
}
