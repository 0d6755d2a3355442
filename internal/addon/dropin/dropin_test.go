package dropin_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"skiff.dev/skiff/internal/addon"
	"skiff.dev/skiff/internal/addon/dropin"
	"skiff.dev/skiff/internal/apiserver/crd"
	"skiff.dev/skiff/internal/client"
	"skiff.dev/skiff/internal/controller/clienttest"
	"skiff.dev/skiff/internal/logtest"
	"skiff.dev/skiff/internal/registry/registrytest"
)

// follow follows a folder into a real registry that serves Addons.
func follow(t *testing.T, dir string, log *logtest.Log) client.Client {
	t.Helper()
	r := registrytest.Start(t, nil, nil)
	quiet := slog.New(slog.DiscardHandler)
	registrytest.Run(t, crd.New(crd.Config{Registry: r.Registry, Log: quiet}))
	c := client.Local(r.Registry, registrytest.Admin, quiet)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = c.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
	var def apiextensionsv1.CustomResourceDefinition
	if err := yaml.UnmarshalStrict(addon.Definition, &def); err != nil {
		t.Fatal(err)
	}
	if err := c.Create(ctx, &def); err != nil {
		t.Fatal(err)
	}
	registrytest.Run(t, dropin.New(dropin.Config{Dir: dir, Server: "s1", Client: c, Kinds: r.Table(), Log: slog.New(slog.NewTextHandler(log, nil))}))
	return c
}

// bundles are the installed add-ons and the digests of what they bring.
func bundles(t *testing.T, c client.Client) map[string]string {
	t.Helper()
	l := addon.EmptyList()
	if c.List(context.Background(), l) != nil {
		return nil // it is not served yet
	}
	out := map[string]string{}
	for i := range l.Items {
		a, err := addon.From(&l.Items[i])
		if err != nil {
			t.Fatal(err)
		}
		var s corev1.Secret
		if err := c.Get(context.Background(), crclient.ObjectKey{Namespace: addon.SecretNamespace, Name: a.Spec.Source.Secret}, &s); err != nil {
			t.Fatal(err)
		}
		out[a.Name] = a.Spec.Source.Digest
	}
	return out
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

const manifest = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {n: '1'}\n"

// An entry that is broken, cut off or empty keeps what it installed before, also under another name than its own; what is wrong is said once; and the entry
// counts again when it is good again.
func TestBrokenEntriesKeepWhatTheyInstalled(t *testing.T) {
	dir, log := t.TempDir(), &logtest.Log{}
	about := filepath.Join(dir, "named", "addon.yaml")
	write(t, about, "name: other\n")
	write(t, filepath.Join(dir, "named", "a.yaml"), manifest)
	write(t, filepath.Join(dir, "single.yaml"), manifest)
	cl := follow(t, dir, log)
	names := func() []string {
		var out []string
		for name := range bundles(t, cl) {
			out = append(out, name)
		}
		slices.Sort(out)
		return out
	}
	await := func(what string, is func() bool) {
		t.Helper()
		clienttest.Eventually(t, what, is)
	}
	await("both add-ons", func() bool { return slices.Equal(names(), []string{"other", "single"}) })
	before := bundles(t, cl)
	single := filepath.Join(dir, "single.yaml")
	cases := []struct{ name, file, text, good string }{
		{"a description that is cut off", about, "name: [oth", "name: other\n"},
		{"noise", about, "\x00\xff", "name: other\n"},
		{"an unknown field", about, "nme: other\n", "name: other\n"},
		{"an empty description", about, "", "name: other\n"},
		{"an empty manifest", single, "", manifest},
	}
	for _, c := range cases {
		told := strings.Count(log.String(), "cannot be installed")
		write(t, c.file, c.text)
		write(t, filepath.Join(dir, "z-marker.yaml"), manifest) // is read after it
		await(c.name+": the marker", func() bool { return bundles(t, cl)["z-marker"] != "" })
		if now := bundles(t, cl); now["other"] != before["other"] || now["single"] != before["single"] {
			t.Errorf("%s: the add-ons are %v, before %v", c.name, now, before)
		}
		write(t, c.file, c.good)
		if err := os.Remove(filepath.Join(dir, "z-marker.yaml")); err != nil {
			t.Fatal(err)
		}
		await(c.name+": the marker gone", func() bool { return slices.Equal(names(), []string{"other", "single"}) })
		if now := strings.Count(log.String(), "cannot be installed"); now != told+1 {
			t.Errorf("%s: told %d times: %s", c.name, now-told, log)
		}
	}
	write(t, single, strings.Replace(manifest, "'1'", "'2'", 1))
	await("the changed manifest", func() bool { now := bundles(t, cl)["single"]; return now != "" && now != before["single"] })
	if err := os.RemoveAll(filepath.Join(dir, "named")); err != nil {
		t.Fatal(err)
	}
	await("only one add-on", func() bool { return slices.Equal(names(), []string{"single"}) })
}
