package static

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skiff.dev/skiff/internal/api"
)

const web = `
apiVersion: v1
kind: Pod
metadata: {name: web}
spec: {containers: [{name: main, image: web}]}
`

func TestParse(t *testing.T) {
	p, err := Parse("web.yaml", []byte(web), "n1")
	if err != nil {
		t.Fatal(err)
	}
	if p.Name != "web-n1" || p.Namespace != "default" || p.Spec.NodeName != "n1" || p.Annotations[SourceAnnotation] != "file" ||
		p.Annotations[HashAnnotation] != string(p.UID) || len(p.UID) != 32 || p.Spec.RestartPolicy != corev1.RestartPolicyAlways || *p.Spec.Priority != api.NodeCriticalPriority {
		t.Errorf("%+v", p)
	}
	m := Mirror(p, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", UID: "u"}})
	if m.Annotations[corev1.MirrorPodAnnotationKey] != string(p.UID) || m.UID != "" || m.OwnerReferences[0].Kind != "Node" || m.Spec.Priority != nil {
		t.Errorf("its mirror: %+v", m)
	}
	if p.Annotations[corev1.MirrorPodAnnotationKey] != "" {
		t.Error("the pod itself was made a mirror")
	}
	for manifest, want := range map[string]string{
		"kind: Pod":   `is Pod of "", but only v1 Pods`,
		"a: [":        "yaml",
		"colour: red": `unknown field "colour"`,
		strings.Replace(web, "name: web", "namespace: x", 1):                                      "needs a name",
		strings.Replace(web, "image: web", "image: ''", 1):                                        "spec.containers[0].image: Required value",
		strings.Replace(web, "name: web", "name: Web", 1):                                         "metadata.name: Invalid value",
		strings.Replace(web, "spec: {", "spec: {serviceAccountName: a, ", 1):                      "static pods may not reference serviceaccounts",
		strings.Replace(web, "spec: {", "spec: {volumes: [{name: v, configMap: {name: c}}], ", 1): "static pods may not reference configmaps",
	} {
		if _, err := Parse("f", []byte(manifest), "n1"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", manifest, err, want)
		}
	}
}

// TestFolder: what is broken leaves the former pod in place, and a name can be had once.
func TestFolder(t *testing.T) {
	f, err := Open(filepath.Join(t.TempDir(), "pods"), "n1")
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(f.path, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	read := func(want int, problem string) string {
		t.Helper()
		pods, err := f.Read()
		if len(pods) != want || (problem == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), problem) {
			t.Fatalf("%d pods (%v), want %d (%s)", len(pods), err, want, problem)
		}
		for uid := range pods {
			return string(uid)
		}
		return ""
	}
	read(0, "")
	write("web.yaml", web)
	write(".hidden", "no")
	first := read(1, "")
	write("web.yaml", "spec: [")
	if read(1, "web.yaml") != first {
		t.Error("a broken file ended its pod")
	}
	write("web.yaml", web+"\n")
	if read(1, "") == first {
		t.Error("a changed file is the same pod")
	}
	write("zweb.yaml", web)
	read(1, "is in "+filepath.Join(f.path, "web.yaml"))
	if err := os.Remove(filepath.Join(f.path, "web.yaml")); err != nil {
		t.Fatal(err)
	}
	read(1, "")
}
