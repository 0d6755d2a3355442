package dynamic

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/admission/plugin/webhook"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/generic"
	kjson "sigs.k8s.io/json"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/apiserver/configfile"
)

// Webhooks and policies from the files of a folder (staticManifestsDir, KEP-5793): they come before those of the API, cannot be seen or changed through it,
// and are asked about the API's own webhooks and policies too.

// folder is where a plug-in's files are, and what they hold.
type folder struct {
	plugin, path string
	kinds        map[string]func() api.Object
	changes      *atomic.Int64 // of Plugins
	content      []byte        // as read at the start
	found        atomic.Pointer[found]
}

// found is what a folder's files hold, by name. Read-only.
type found struct {
	objects map[string][]api.Object // by kind
	hooks   []webhook.WebhookAccessor
}

// kindsOf are those that a plug-in's files may hold.
var kindsOf = map[string]map[string]func() api.Object{
	mutatingWebhooks:   {"MutatingWebhookConfiguration": func() api.Object { return &admissionv1.MutatingWebhookConfiguration{} }},
	validatingWebhooks: {"ValidatingWebhookConfiguration": func() api.Object { return &admissionv1.ValidatingWebhookConfiguration{} }},
	mutatingPolicies: {
		"MutatingAdmissionPolicy":        func() api.Object { return &admissionv1.MutatingAdmissionPolicy{} },
		"MutatingAdmissionPolicyBinding": func() api.Object { return &admissionv1.MutatingAdmissionPolicyBinding{} },
	},
	validatingPolicies: {
		"ValidatingAdmissionPolicy":        func() api.Object { return &admissionv1.ValidatingAdmissionPolicy{} },
		"ValidatingAdmissionPolicyBinding": func() api.Object { return &admissionv1.ValidatingAdmissionPolicyBinding{} },
	},
}

// openFolder reads the folder that a plug-in's configuration names; none is named by "".
func (p *Plugins) openFolder(plugin, path string) error {
	if path == "" {
		return nil
	}
	f := &folder{plugin: plugin, path: path, kinds: kindsOf[plugin], changes: &p.changes}
	var err error
	if f.content, err = configfile.ReadFolder(path); err != nil {
		return fmt.Errorf("staticManifestsDir: %w", err)
	}
	first, err := f.read(f.content)
	if err != nil {
		return fmt.Errorf("staticManifestsDir: %w", err)
	}
	f.found.Store(first) // Start counts it
	p.folders[plugin] = f
	return nil
}

// Follow follows the folders with webhooks and policies.
func (p *Plugins) Follow(figures prometheus.Registerer, log *slog.Logger) (out []*configfile.Follower) {
	for _, plugin := range slices.Sorted(maps.Keys(p.folders)) {
		f := p.folders[plugin]
		out = append(out, &configfile.Follower{
			Key: "staticManifestsDir of " + plugin, File: f.path, Folder: true, Holds: f.content, Log: log,
			Read:    func(_ context.Context, raw []byte) error { return f.take(raw) },
			Figures: configfile.NewFigures(figures, "manifest_admission_config_controller", prometheus.Labels{"plugin": plugin}),
		})
	}
	return out
}

// take puts what the folder holds in force, all of it or nothing.
func (f *folder) take(content []byte) error {
	next, err := f.read(content)
	if err != nil {
		return err
	}
	f.found.Store(next)
	f.changes.Add(1)
	return nil
}

func (f *folder) read(content []byte) (*found, error) {
	docs, err := configfile.Documents(f.path, content)
	if err != nil {
		return nil, err
	}
	r := reading{folder: f, at: map[string]string{}, out: &found{objects: map[string][]api.Object{}}}
	for _, d := range docs {
		if err := r.add(d.Where, d.JSON, ""); err != nil {
			return nil, fmt.Errorf("%s: %w", d.Where, err)
		}
	}
	if err := r.bound(); err != nil {
		return nil, err
	}
	for _, list := range r.out.objects {
		slices.SortFunc(list, func(a, b api.Object) int { return strings.Compare(a.GetName(), b.GetName()) })
		for _, o := range list {
			r.out.hooks = append(r.out.hooks, accessors(o)...)
		}
	}
	return r.out, nil
}

// reading is a folder's content while it is read.
type reading struct {
	*folder
	at  map[string]string // "kind/name" → where it stands
	out *found
}

// add takes a document, or an item of one, that is of a kind which items of typed lists need not name.
func (r *reading) add(where string, raw []byte, kind string) error {
	var is struct {
		APIVersion, Kind string
		Items            []json.RawMessage
	}
	if err := json.Unmarshal(raw, &is); err != nil {
		return err
	}
	if kind != "" && is.Kind == "" && is.APIVersion == "" {
		is.Kind, is.APIVersion = kind, admissionv1.SchemeGroupVersion.String()
	}
	of, typed := strings.CutSuffix(is.Kind, "List")
	switch {
	case is.APIVersion == "v1" && is.Kind == "List":
		return r.items(where, is.Items, "")
	case is.APIVersion != admissionv1.SchemeGroupVersion.String() || r.kinds[is.Kind] == nil && (!typed || r.kinds[of] == nil):
		return fmt.Errorf("it is a %q of %q; files of %s hold %s of %s", is.Kind, is.APIVersion, r.plugin,
			strings.Join(slices.Sorted(maps.Keys(r.kinds)), " and "), admissionv1.SchemeGroupVersion)
	case r.kinds[is.Kind] == nil:
		return r.items(where, is.Items, of)
	}
	return r.object(where, raw, is.Kind)
}

func (r *reading) items(where string, items []json.RawMessage, kind string) error {
	for i, item := range items {
		if err := r.add(where, item, kind); err != nil {
			return fmt.Errorf("items[%d]: %w", i, err)
		}
	}
	return nil
}

func (r *reading) object(where string, raw []byte, kind string) error {
	obj := r.kinds[kind]()
	strict, err := kjson.UnmarshalStrict(raw, obj)
	if err = errors.Join(append(strict, err)...); err != nil {
		return fmt.Errorf("%s %s: %w", kind, obj.GetName(), err)
	}
	if errs := api.CompleteAdmission(obj); len(errs) > 0 {
		return fmt.Errorf("%s %s: %w", kind, obj.GetName(), errs.ToAggregate())
	}
	if other := r.at[kind+"/"+obj.GetName()]; other != "" {
		return fmt.Errorf("%s %s is in %s already", kind, obj.GetName(), other)
	}
	r.at[kind+"/"+obj.GetName()] = where
	sum := sha256.Sum256(raw)
	obj.SetUID(types.UID(hex.EncodeToString(sum[:16]))) // another content is another object: it is compiled anew
	r.out.objects[kind] = append(r.out.objects[kind], obj)
	return nil
}

// bound says whether the policies that are bound are there.
func (r *reading) bound() error {
	for kind, list := range r.out.objects {
		of, binding := strings.CutSuffix(kind, "Binding")
		for _, o := range list {
			if name := api.BoundPolicy(o); binding && r.at[of+"/"+name] == "" {
				return fmt.Errorf("%s: %s %s: spec.policyName: there is no %s %q in this folder", r.at[kind+"/"+o.GetName()], kind, o.GetName(), of, name)
			}
		}
	}
	return nil
}

// now is what the folder's files hold; nothing, if there is no folder.
func (f *folder) now() *found {
	if f == nil {
		return &found{}
	}
	return f.found.Load()
}

func (f *found) of(kind string) (out []any) {
	for _, o := range f.objects[kind] {
		out = append(out, o)
	}
	return out
}

// accessors are a configuration's webhooks as the plug-ins ask for them.
func accessors(o api.Object) (out []webhook.WebhookAccessor) {
	switch c := o.(type) {
	case *admissionv1.MutatingWebhookConfiguration:
		for i := range c.Webhooks {
			out = append(out, webhook.NewMutatingWebhookAccessor(hookID(c.Name, c.Webhooks[i].Name), c.Name, &c.Webhooks[i]))
		}
	case *admissionv1.ValidatingWebhookConfiguration:
		for i := range c.Webhooks {
			out = append(out, webhook.NewValidatingWebhookAccessor(hookID(c.Name, c.Webhooks[i].Name), c.Name, &c.Webhooks[i]))
		}
	}
	return out
}

// hookID tells webhooks apart; names of one configuration are.
func hookID(configuration, name string) string { return "manifest/" + configuration + "/" + name }

// hookFiles hands a folder's webhooks to upstream's plug-in, which puts them before the API's.
type hookFiles struct{ *folder }

var _ generic.ReloadableSource = hookFiles{}

func (f hookFiles) Webhooks() []webhook.WebhookAccessor { return f.now().hooks }
func (hookFiles) HasSynced() bool                       { return true }

// RunReloadLoop has nothing to do: the server follows the folder.
func (hookFiles) RunReloadLoop(context.Context) {}
