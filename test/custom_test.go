package test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"skiff.dev/skiff/test/cluster"
)

// windmills is a definition with two versions, validation, defaults, a rule, columns, scale and status.
const windmills = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: windmills.power.example.com}
spec:
  group: power.example.com
  scope: Namespaced
  names: {plural: windmills, singular: windmill, kind: Windmill, shortNames: [wm], categories: [all, power]}
  versions:
  - name: v1
    served: true
    storage: true
    selectableFields: [{jsonPath: .spec.maker}]
    subresources:
      status: {}
      scale: {specReplicasPath: .spec.blades, statusReplicasPath: .status.blades}
    additionalPrinterColumns:
    - {name: Maker, type: string, jsonPath: .spec.maker}
    - {name: Blades, type: integer, jsonPath: .spec.blades}
    - {name: Height, type: number, jsonPath: .spec.height, priority: 1}
    - {name: Age, type: date, jsonPath: .metadata.creationTimestamp}
    schema:
      openAPIV3Schema:
        type: object
        description: A windmill turns wind into power.
        required: [spec]
        properties:
          spec:
            type: object
            description: What the windmill shall be like.
            required: [maker]
            x-kubernetes-validations:
            - {rule: "self.maker == oldSelf.maker", message: "the maker cannot be changed"}
            properties:
              maker: {type: string, pattern: '^[a-z]+$', description: Who built it.}
              blades: {type: integer, minimum: 2, maximum: 5, default: 3}
              height: {type: number, default: 80.5}
          status:
            type: object
            properties: {blades: {type: integer}, phase: {type: string}}
  - name: v1alpha1
    served: true
    storage: false
    deprecated: true
    schema:
      openAPIV3Schema:
        type: object
        properties: {spec: {type: object, properties: {maker: {type: string}, blades: {type: integer}}}}
`

const windmill = `
apiVersion: power.example.com/v1
kind: Windmill
metadata: {name: %s}
spec: {maker: %s}
`

// TestCustomResources is what users of kubectl do with custom resources, from their definition to its end.
func TestCustomResources(t *testing.T) {
	t.Parallel()
	c := cluster.New(t)
	c.Server()
	c = c.With(stockKubectl(t))
	define(c)
	t.Run("life of an object", func(t *testing.T) { customLife(t, c.Space(t, "custom-life")) })
	t.Run("what is refused", func(t *testing.T) { customRefused(t, c.Space(t, "custom-refused")) })
	t.Run("get, explain, discovery", func(t *testing.T) { customShown(t, c.Space(t, "custom-shown")) })
	t.Run("two versions", func(t *testing.T) { customVersions(t, c.Space(t, "custom-versions")) })
	t.Run("owners and namespaces", func(t *testing.T) { customOwned(t, c.For(t)) })
	t.Run("a restart", func(t *testing.T) { customRestart(t, c.For(t)) })
	t.Run("the definition's end", func(t *testing.T) { customEnd(t, c.For(t)) })
}

func define(c *cluster.Cluster) {
	c.Apply(windmills)
	c.Kubectl("wait", "--for=condition=Established", "crd/windmills.power.example.com", "--timeout=3m")
}

// match checks kubectl's output against a pattern.
func match(t *testing.T, c *cluster.Cluster, want string, args ...string) {
	t.Helper()
	if out := c.Kubectl(args...); !regexp.MustCompile(want).MatchString(out) {
		t.Errorf("kubectl %s: no match for %q in\n%s", strings.Join(args, " "), want, out)
	}
}

// turnedDown checks that kubectl fails and says why.
func turnedDown(t *testing.T, c *cluster.Cluster, want string, args ...string) {
	t.Helper()
	if out, err := c.TryKubectl(args...); err == nil || !strings.Contains(out, want) {
		t.Errorf("kubectl %s: %v, want %q in\n%s", strings.Join(args, " "), err, want, out)
	}
}

func customLife(t *testing.T, c *cluster.Cluster) {
	c.Apply(fmt.Sprintf(windmill, "one", "acme"))
	match(t, c, `^acme 3 80.5 1$`, "get", "windmill", "one", "-o", "jsonpath={.spec.maker} {.spec.blades} {.spec.height} {.metadata.generation}")
	c.Apply(strings.Replace(fmt.Sprintf(windmill, "one", "acme"), "maker: acme", "maker: acme, blades: 4", 1))
	c.Kubectl("patch", "wm/one", "--type=merge", "-p", `{"metadata":{"labels":{"tall":"yes"}}}`)
	c.Kubectl("patch", "wm/one", "--type=json", "-p", `[{"op":"add","path":"/spec/height","value":120}]`)
	c.Kubectl("label", "wm", "one", "seen=true")
	c.Kubectl("scale", "wm/one", "--replicas=5")
	match(t, c, `^5 120 yes true$`, "get", "wm", "one", "-o", "jsonpath={.spec.blades} {.spec.height} {.metadata.labels.tall} {.metadata.labels.seen}")
	c.Kubectl("patch", "wm/one", "--subresource=status", "--type=merge", "-p", `{"status":{"phase":"Turning","blades":5},"spec":{"blades":2}}`)
	match(t, c, `^5 Turning$`, "get", "wm", "one", "-o", "jsonpath={.spec.blades} {.status.phase}")
	edit := c.KubectlCommand("edit", "wm/one")
	edit.Env = append(edit.Environ(), "KUBE_EDITOR=sed -i s/blades:.5/blades:\\ 2/")
	if out, err := edit.CombinedOutput(); err != nil {
		t.Errorf("edit: %v\n%s", err, out)
	}
	match(t, c, `^2$`, "get", "wm", "one", "-o", "jsonpath={.spec.blades}")
	match(t, c, `(?s)Name: +one.*Maker: +acme.*Phase: +Turning`, "describe", "wm", "one")
	match(t, c, `deleted`, "delete", "wm", "one")
	turnedDown(t, c, `windmills.power.example.com "one" not found`, "get", "wm", "one")
}

func customRefused(t *testing.T, c *cluster.Cluster) {
	apply := func(manifest, want string) {
		t.Helper()
		cmd := c.KubectlCommand("apply", "-f", "-")
		cmd.Stdin = strings.NewReader(manifest)
		if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), want) {
			t.Errorf("%v, want %q in\n%s", err, want, out)
		}
	}
	good := fmt.Sprintf(windmill, "two", "acme")
	apply(strings.Replace(good, "maker: acme", "maker: ACME", 1), `spec.maker in body should match '^[a-z]+$'`)
	apply(strings.Replace(good, "maker: acme", "maker: acme, blades: 9", 1), "spec.blades in body should be less than or equal to 5")
	apply(strings.Replace(good, "maker: acme", "blades: 3", 1), "spec.maker: Required value")
	apply(strings.Replace(good, "maker: acme", "maker: acme, wheels: 4", 1), `unknown field "spec.wheels"`)
	apply(strings.Replace(good, "maker: acme", "maker: acme, blades: three", 1), "must be of type integer")
	c.Apply(good)
	apply(strings.Replace(good, "acme", "other", 1), "the maker cannot be changed")
	turnedDown(t, c, "application/strategic-merge-patch+json is not supported", "patch", "wm/two", "--type=strategic", "-p", `{"spec":{"blades":2}}`)
	other := strings.ReplaceAll(windmills, "windmills", "mills")
	apply(strings.Replace(other, "scope: Namespaced", "scope: World", 1), `spec.scope: Unsupported value: "World"`)
	apply(strings.Replace(other, "self.maker == oldSelf.maker", "self.make == oldSelf.maker", 1), "undefined field 'make'")
}

func customShown(t *testing.T, c *cluster.Cluster) {
	c.Apply(fmt.Sprintf(windmill, "a", "acme"))
	c.Apply(fmt.Sprintf(windmill, "b", "boreas"))
	match(t, c, `(?m)^NAME +MAKER +BLADES +AGE\na +acme +3 +\d+s\nb +boreas +3 +\d+s$`, "get", "wm")
	match(t, c, `NAME +MAKER +BLADES +HEIGHT +AGE`, "get", "windmills", "-o", "wide")
	match(t, c, `^windmill.power.example.com/b\n$`, "get", "wm", "--field-selector", "spec.maker=boreas", "-o", "name")
	match(t, c, `windmill.power.example.com/a`, "get", "power", "-o", "name")
	match(t, c, `windmill.power.example.com/a`, "get", "all", "-o", "name")
	match(t, c, `windmills +wm +power.example.com/v1 +true +Windmill`, "api-resources", "--api-group=power.example.com")
	match(t, c, `power.example.com/v1\npower.example.com/v1alpha1`, "api-versions")
	match(t, c, `(?s)GROUP: +power.example.com\nKIND: +Windmill\nVERSION: +v1\n.*A windmill turns wind into power.*spec\t<Object> -required-`, "explain", "windmills")
	match(t, c, `(?s)FIELD: maker <string>.*Who built it`, "explain", "wm.spec.maker")
	match(t, c, `(?s)blades\t<integer>.*height\t<number>.*maker\t<string> -required-`, "explain", "wm.spec")
	match(t, c, `(?s)NAME +CREATED AT\nwindmills.power.example.com +\d+-`, "get", "crd", "windmills.power.example.com")
}

func customVersions(t *testing.T, c *cluster.Cluster) {
	c.Apply(fmt.Sprintf(windmill, "one", "acme"))
	out := c.Kubectl("get", "windmills.v1alpha1.power.example.com", "one", "-o", "yaml")
	if !strings.Contains(out, "apiVersion: power.example.com/v1alpha1") || strings.Contains(out, "height:") {
		t.Errorf("in the old version:\n%s", out)
	}
	if !strings.Contains(out, "is deprecated; use power.example.com/v1 Windmill") {
		warned, _ := c.TryKubectl("get", "windmills.v1alpha1.power.example.com")
		if !strings.Contains(warned, "is deprecated; use power.example.com/v1 Windmill") {
			t.Errorf("no warning:\n%s", warned)
		}
	}
	c.Apply(strings.Replace(fmt.Sprintf(windmill, "old", "zephyr"), "example.com/v1", "example.com/v1alpha1", 1))
	match(t, c, `^power.example.com/v1 zephyr 3$`, "get", "wm", "old", "-o", "jsonpath={.apiVersion} {.spec.maker} {.spec.blades}")
}

// customOwned: the garbage collector and the end of a namespace know of kinds that came later.
func customOwned(t *testing.T, c *cluster.Cluster) {
	space := c.Space(t, "custom-owned")
	space.Apply(fmt.Sprintf(windmill, "owner", "acme"))
	uid := space.Kubectl("get", "wm", "owner", "-o", "jsonpath={.metadata.uid}")
	owned := `
apiVersion: %s
kind: %s
metadata:
  name: owned
  ownerReferences: [{apiVersion: power.example.com/v1, kind: Windmill, name: owner, uid: ` + uid + `}]
%s`
	space.Apply(fmt.Sprintf(owned, "v1", "ConfigMap", ""))
	space.Apply(fmt.Sprintf(owned, "power.example.com/v1", "Windmill", "spec: {maker: acme}"))
	space.Kubectl("delete", "wm", "owner")
	space.Kubectl("wait", "--for=delete", "configmap/owned", "wm/owned", "--timeout=3m")
	space.Apply(fmt.Sprintf(windmill, "last", "acme"))
	c.Kubectl("delete", "namespace", "custom-owned", "--timeout=3m")
}

func customRestart(t *testing.T, c *cluster.Cluster) {
	c.Apply(fmt.Sprintf(windmill, "kept", "acme"))
	before := c.Kubectl("get", "wm", "kept", "-o", "yaml")
	c.Stop()
	c.Server()
	if after := c.Kubectl("get", "wm", "kept", "-o", "yaml"); after != before {
		t.Errorf("before the restart:\n%s\nafter it:\n%s", before, after)
	}
}

func customEnd(t *testing.T, c *cluster.Cluster) {
	c.Kubectl("delete", "crd", "windmills.power.example.com", "--timeout=3m")
	turnedDown(t, c, "the server could not find the requested resource", "get", "windmills") // kubectl remembers that there were such
	if out := c.Kubectl("api-versions"); strings.Contains(out, "power.example.com") {
		t.Errorf("the group is still there:\n%s", out)
	}
	define(c)
	end := time.Now().Add(5 * time.Second)
	for out := ""; !strings.Contains(out, "No resources found"); {
		if out, _ = c.TryKubectl("get", "wm", "-A"); time.Now().After(end) {
			t.Fatalf("objects outlived their definition:\n%s", out)
		}
	}
}
