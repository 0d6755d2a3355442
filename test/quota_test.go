package test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"skiff.dev/skiff/test/cluster"
)

const limitedResources = `
apiVersion: apiserver.config.k8s.io/v1
kind: AdmissionConfiguration
plugins:
- name: ResourceQuota
  configuration:
    apiVersion: apiserver.config.k8s.io/v1
    kind: ResourceQuotaConfiguration
    limitedResources:
    - resource: pods
      matchScopes: [{scopeName: PriorityClass, operator: In, values: [vital]}]
    - {apiGroup: apps, resource: deployments, matchContains: [count/deployments.apps]}
`

const vitalQuota = `
apiVersion: v1
kind: ResourceQuota
metadata: {name: vital}
spec:
  hard: {pods: 1}
  scopeSelector: {matchExpressions: [{scopeName: PriorityClass, operator: In, values: [vital]}]}
---
apiVersion: v1
kind: ResourceQuota
metadata: {name: deployments}
spec: {hard: {count/deployments.apps: 1}}
`

// TestLimitedResources: what the ResourceQuota plug-in is configured to limit needs a quota, and has it once the controller has counted.
func TestLimitedResources(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "admission.yaml")
	if err := os.WriteFile(file, []byte(limitedResources), 0o600); err != nil {
		t.Fatal(err)
	}
	c := cluster.New(t, "--no-agent", "--no-scheduler", "--admission-control-config-file", file)
	c.Server()
	c.Kubectl("create", "priorityclass", "vital", "--value=1000")
	vital := []string{"run", "a", "--image=skiff/web", `--overrides={"spec":{"priorityClassName":"vital"}}`}
	deployment := []string{"create", "deployment", "d", "--image=skiff/web", "--replicas=0"}
	refused := func(want string, args ...string) {
		t.Helper()
		if out, err := c.TryKubectl(args...); err == nil || !strings.Contains(out, want) {
			t.Errorf("%v\n%swant %s", err, out, want)
		}
	}
	c.Kubectl("run", "plain", "--image=skiff/web")
	refused(`pods "a" is forbidden: insufficient quota to match these scopes: [{PriorityClass In [vital]}]`, vital...)
	refused(`deployments.apps "d" is forbidden: insufficient quota to consume: count/deployments.apps`, deployment...)
	c.Apply(vitalQuota)
	for _, args := range [][]string{vital, deployment} {
		cluster.Eventually(t, func() error { // until the new quotas have been counted
			if out, err := c.TryKubectl(args...); err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			return nil
		})
	}
	if got := c.Kubectl("get", "resourcequota", "-o", `jsonpath={range .items[*]}{.metadata.name} {.status.used} {end}`); got != `deployments {"count/deployments.apps":"1"} vital {"pods":"1"} ` {
		t.Error(got)
	}
	vital[1], deployment[2] = "b", "e"
	refused(`pods "b" is forbidden: exceeded quota: vital, requested: pods=1, used: pods=1, limited: pods=1`, vital...)
	refused(`deployments.apps "e" is forbidden: exceeded quota: deployments, requested: count/deployments.apps=1, used: count/deployments.apps=1, limited: count/deployments.apps=1`, deployment...)
}
